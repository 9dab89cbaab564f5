"""Arms: short names for trees of settings. This is the only place that knows the names.

A recipe returns the settings of its run as an OPU trains it. Each arm is a function that takes these settings and
returns a copy with another rule or another projection; everything else stays equal, so that arms can be compared.
Applying an arm to a tree that it made returns an equal tree; `name_of` relies on this to find the name of a tree.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

from odfa.encode import EncoderSettings, StochasticSettings
from odfa.engine.rules import AbstractRule, Backprop, RandomFeedback, Shallow
from odfa.errors import ConfigError
from odfa.project import GaussianSettings, IdentitySettings, OpticalSettings
from odfa.project.digital import DigitalSettings
from odfa.session.config import RunConfig
from odfa.settings import SettingError, apply, changes, of_slot, resolved, shown, tag_of

BACKPROP, SHALLOW = "bp", "shallow"
"""A comparison measures how much of the gap between these two arms another arm closes."""


def _bp(run: RunConfig) -> RunConfig:
    """All weights learn by backpropagation."""
    return run.changed("rule", Backprop())


def _shallow(run: RunConfig) -> RunConfig:
    """Only the head learns, by its true gradient; another arm must do better, or its blocks have not learned."""
    return run.changed("rule", Shallow())


def _dfa(run: RunConfig) -> RunConfig:
    """The blocks learn by a digital random projection of the error, which is not encoded."""
    return replace(_fed(run), projection=replace(_digital(run), encoder=None))


def _tdfa(run: RunConfig) -> RunConfig:
    """The blocks learn by a digital random projection of the error, encoded as an OPU's mirrors would show it."""
    return replace(_fed(run), projection=replace(_digital(run), encoder=_encoder(run)))


def _odfa(run: RunConfig) -> RunConfig:
    """The blocks learn by a projection of the encoded error through an OPU."""
    if isinstance(run.projection, OpticalSettings):
        return run
    return replace(_fed(run), projection=OpticalSettings(encoder=_encoder(run)))


def _identity(run: RunConfig) -> RunConfig:
    """The last block learns by its exact gradient, and copies its error unprojected to the others: a control."""
    if isinstance(run.projection, IdentitySettings) and isinstance(run.rule, RandomFeedback) and run.rule.shared:
        return run
    ruled = run.changed("rule", RandomFeedback(shared=True))
    return replace(ruled, projection=IdentitySettings())


ARMS: Mapping[str, Callable[[RunConfig], RunConfig]] = {
    BACKPROP: _bp,
    SHALLOW: _shallow,
    "dfa": _dfa,
    "tdfa": _tdfa,
    "odfa": _odfa,
    "identity": _identity,
}
"""Name → arm; the docstring of each function says what its blocks learn by."""
_RULED = ("dfa", "tdfa", "odfa")
"""Arms that leave the rule to the recipe, and so accept another one as ARM:RULE."""
_ALONE = "rule"
"""Word before a rule that projects nothing, as in rule:package.module:Name: an arm of its own, without projection."""
NOBODYS = "projection:"
"""How the name of a tree begins that no arm makes."""
WORDS = f"{', '.join(ARMS)}, ARM:RULE with one of {', '.join(_RULED)}, or {_ALONE}:RULE"
"""What may stand behind `arm=`."""
_OWN = re.compile(r"\+(?=[^\W\d][\w.-]*=)")
"""A plus before a setting; that of 1e+3 stands before no name and no equals sign."""
_SHARED = {
    "seed": "seeds= counts the seeds, which all arms have",
    "task": "all arms of a comparison have one task; write it beside arms=",
    "data": "all arms of a comparison have the same data; write it beside arms=",
}
"""Part of the tree → why no arm of a comparison has one of its own."""
DEFAULT_ARM = "dfa"
"""Arm that is trained if neither the recipe nor the user names one."""
DEFAULT_ARMS = f"{BACKPROP},{SHALLOW},dfa,odfa"
"""Arms that a comparison runs if the user names none, as one word of the command line."""
GROWING_ARMS = f"{BACKPROP},odfa,odfa+hops=0,dfa:exact,dfa:random"
"""Arms whose loss is followed over compute if the user names none."""


def trees(run: RunConfig, words: Sequence[str], beside: Sequence[str] = ()) -> dict[str, RunConfig]:
    """Word → tree: each word is an arm, ARM:RULE for a rule that is not the recipe's own, or rule:RULE for one that
    projects nothing; +key=value behind it, once or more, is a setting of this arm alone.

    Args:
        run: the recipe's run.
        words: see above.
        beside: settings key=value for each arm that has them; an arm's own goes before, and none of them changes what
            an arm's name settles.

    Raises:
        ConfigError: a name that is no arm or rule, a rule for an arm that has its own, a word given twice, or no word;
            settings of one arm that `apply` refuses, that all arms share, or that make its tree another arm's.
    """
    if not words:
        raise ConfigError(f"arms: expected some of {WORDS}, got none; name at least one")
    if len(set(words)) < len(words):
        raise ConfigError(f"arms: expected each of them once, got {','.join(words)}")
    for word in words:
        if parted(word)[1] and not word.isprintable():  # it names a row of tables and a line of figures
            raise ConfigError(f"arms: expected printable letters, got {shown(word)}; write this setting beside arms=")
    for word, following in pairwise(words):
        if parted(word)[1] and parted(following)[0].partition(":")[0] not in (*ARMS, _ALONE):
            raise ConfigError(
                f"arms: expected an arm behind {word}, got {following!r}; a comma ends an arm, so a value that has one "
                "is written beside arms=, for all arms"
            )
    return {word: _with_settings(run, word, beside) for word in words}


def parted(word: str) -> tuple[str, list[str]]:
    """The arm of a word of a comparison, and the settings key=value of this arm alone."""
    name, *own = _OWN.split(word)
    return name, own


def check_apart(made: Mapping[str, RunConfig]) -> None:
    """Refuse settings of single arms that leave two arms of a comparison the same run.

    Raises:
        ConfigError: two trees differ in nothing that is read, and one has settings of its own.
    """
    for first, second in combinations(made, 2):
        own = parted(second)[1] or parted(first)[1]
        if own and not changes(made[first], made[second]):
            raise ConfigError(
                f"arms: {first} and {second} are the same run, {' '.join(own)} changes nothing; give another value, or "
                "leave one of them out"
            )


def _with_settings(run: RunConfig, word: str, beside: Sequence[str]) -> RunConfig:
    """The arm's tree with its own settings, and with those beside that it has and that are not among its own."""
    name, own = parted(word)
    made = refined = arm(run, name)
    places: set[str | None] = set()
    if own:
        try:
            refined = apply(made, own)
            places |= set(resolved(made, own).values())
            _refuse_shared(places)
            if told := stray(name, made, refined, own):
                raise ConfigError(told)
        except ConfigError as error:
            raise ConfigError(f"arms: {word}: {error}") from error
    known = resolved(refined, beside)
    others = [setting for setting in beside if known[setting] is not None and known[setting] not in places]
    changed = apply(made, [*own, *others], heard=False)
    return changed if settles(name, changed) else refined


def _refuse_shared(places: set[str | None]) -> None:
    """Arms of a comparison differ in how they learn, and have the rest in common."""
    for place in sorted(filter(None, places)):
        part = place.partition(".")[0]
        if part in _SHARED:
            raise SettingError(place, f"expected no setting of one arm; {_SHARED[part]}")


def arm(run: RunConfig, word: str) -> RunConfig:
    """The tree that an arm makes of a run.

    Raises:
        ConfigError: a name that is no arm or rule, a rule for an arm that has its own or needs another sort, or
            settings behind the arm, which only a comparison takes.
    """
    plain, own = parted(word)
    if own:
        told = " ".join([f"arm={plain}", *own])
        raise ConfigError(f"arm: expected an arm alone, got {word}; write its settings beside it: {told}")
    name, colon, _ = word.partition(":")
    if colon and name in (*_RULED, _ALONE):
        ruled = run.changed("rule", _rule(run, word))
        return ruled if name == _ALONE else ARMS[name](ruled)
    if colon and name in ARMS:
        raise ConfigError(f"arms: expected ARM:RULE with one of {', '.join(_RULED)}, got {word}")
    if name not in ARMS:
        advice = "; a setting of one arm is written ARM+key=value" if "+" in name else ""
        raise ConfigError(f"arms: expected some of {WORDS}, got {name!r}{advice}")
    return ARMS[name](run)


def _rule(run: RunConfig, word: str) -> AbstractRule:
    """The rule that ARM:RULE or rule:RULE names, which projects as the word needs it."""
    name, _, rule = word.partition(":")
    # with `before`, fields that both rules inherit from one class keep the recipe's values
    try:
        chosen = of_slot(AbstractRule, rule, before=run.rule)
    except ConfigError as error:
        raise ConfigError(f"arms: {error}") from error
    if chosen.projects and name == _ALONE:
        others = " or ".join(f"{ruled}:{rule}" for ruled in _RULED)
        raise ConfigError(
            f"arms: expected a rule that projects nothing in {word}, got {rule}, which projects the error; name "
            f"{others} instead"
        )
    if not chosen.projects and name != _ALONE:
        raise ConfigError(
            f"arms: expected a rule that projects the error in {word}, got {rule}, which projects nothing; name "
            f"another rule, or {_ALONE}:{rule} for this one without a projection"
        )
    return chosen


def by_rule(run: RunConfig, rule: str) -> str:
    """The word of an arm that learns by a rule.

    Raises:
        ConfigError: there is no such rule.
    """
    chosen = of_slot(AbstractRule, rule)
    return f"{_RULED[0]}:{rule}" if chosen.projects else name_of(run.changed("rule", chosen))


def settles(word: str, run: RunConfig) -> bool:
    """Whether a tree is the arm's: its rule and its projection are what the arm's name says, whatever their settings.

    Raises:
        ConfigError: what `arm` raises about the word.
    """
    name, colon, _ = word.partition(":")
    if colon and type(run.rule) is not type(_rule(run, word)):
        return False
    return name == _ALONE or ARMS[name](run) == run


def stray(word: str, before: RunConfig, after: RunConfig, settings: Sequence[str], key: str = "") -> str | None:
    """What is wrong where settings made another tree of an arm's; None: the tree is still the arm's.

    Args:
        word: the arm.
        before, after: its tree without and with the settings.
        settings: words key=value.
        key: what stands before the arm where it may be left out, such as arm=.
    """
    if settles(word, after):
        return None
    found = name_of(after)
    told = " and ".join(one for one in settings if _strays(word, before, one)) or " ".join(settings)
    if found.startswith(NOBODYS):
        instead = f"leave {key}{word} out, or " if key else ""
        return f"{told} would make it the tree of no arm; {instead}leave {told} out"
    return f"{told} would make it the arm {found}; say {key}{found} instead, or leave {told} out"


def _strays(word: str, before: RunConfig, setting: str) -> bool:
    """Whether one setting alone makes another arm's tree; False where it needs the others to be understood."""
    try:
        return not settles(word, apply(before, [setting], heard=False))
    except ConfigError:
        return False


def name_of(run: RunConfig) -> str:
    """The arm whose tree this is; if it is the tree of none, projection:KIND, or rule:KIND without a projection."""
    # an arm leaves its own trees unchanged, so the tree itself says which arm made it and no name has to be stored
    found = next((name for name, make in ARMS.items() if make(run) == run), None)
    if found is None and run.projection is not None:
        return f"{NOBODYS}{tag_of(run.projection)}"
    return found or f"{_ALONE}:{tag_of(run.rule)}"


def _fed(run: RunConfig) -> RunConfig:
    """The run with its own rule if that one projects the error, else with random feedback."""
    return run if run.rule.projects else run.changed("rule", RandomFeedback())


def _digital(run: RunConfig) -> DigitalSettings:
    """The run's own projection if it is a digital one, else a Gaussian matrix."""
    return run.projection if isinstance(run.projection, DigitalSettings) else GaussianSettings()


def _encoder(run: RunConfig) -> EncoderSettings:
    """The run's own encoder if it has one, else the stochastic ternary one."""
    own = run.projection.encoder if isinstance(run.projection, DigitalSettings | OpticalSettings) else None
    return own or StochasticSettings()
