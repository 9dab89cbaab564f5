"""Arms: short names for trees of settings. This is the only place that knows the names.

A recipe returns the settings of its run as an OPU trains it. Each arm is a function that takes these settings and
returns a copy with another rule or another projection; everything else stays equal, so that arms can be compared.
Applying an arm to a tree that it made returns an equal tree; `name_of` relies on this to find the name of a tree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from odfa.encode import EncoderSettings, StochasticSettings
from odfa.engine.rules import AbstractRule, Backprop, RandomFeedback, Shallow
from odfa.errors import ConfigError
from odfa.project import GaussianSettings, IdentitySettings, OpticalSettings
from odfa.project.digital import DigitalSettings
from odfa.session.config import RunConfig
from odfa.settings import of_slot, tag_of

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
DEFAULT_ARM = "dfa"
"""Arm that is trained if neither the recipe nor the user names one."""
DEFAULT_ARMS = f"{BACKPROP},{SHALLOW},dfa,odfa"
"""Arms that a comparison runs if the user names none, as one word of the command line."""


def trees(run: RunConfig, words: Sequence[str]) -> dict[str, RunConfig]:
    """Word → tree: each word is an arm, ARM:RULE for a rule that is not the recipe's own, or rule:RULE for one that
    projects nothing.

    Raises:
        ConfigError: a name that is no arm or rule, a rule for an arm that has its own, a word given twice, or no word.
    """
    if not words:
        raise ConfigError(f"arms: expected some of {WORDS}, got none; name at least one")
    if len(set(words)) < len(words):
        raise ConfigError(f"arms: expected each of them once, got {','.join(words)}")
    return {word: arm(run, word) for word in words}


def arm(run: RunConfig, word: str) -> RunConfig:
    """The tree that an arm makes of a run.

    Raises:
        ConfigError: a name that is no arm or rule, or a rule for an arm that has its own or needs another sort.
    """
    name, colon, _ = word.partition(":")
    if colon and name in (*_RULED, _ALONE):
        ruled = run.changed("rule", _rule(run, word))
        return ruled if name == _ALONE else ARMS[name](ruled)
    if colon and name in ARMS:
        raise ConfigError(f"arms: expected ARM:RULE with one of {', '.join(_RULED)}, got {word}")
    if name not in ARMS:
        raise ConfigError(f"arms: expected some of {WORDS}, got {name!r}")
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
