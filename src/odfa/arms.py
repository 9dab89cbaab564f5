"""Arms: short names for trees of settings. This is the only place that knows the names.

A recipe describes its run with an optical projection; every arm replaces rule and projection in that tree and keeps the
rest. Applying an arm to its own tree changes nothing, so that the arm of a given tree can be found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from odfa.encode import EncoderSettings, StochasticSettings
from odfa.engine.rules import AbstractRule, Backprop, RandomFeedback, Shallow
from odfa.errors import ConfigError
from odfa.project import GaussianSettings, IdentitySettings, OpticalSettings
from odfa.project.digital import DigitalSettings
from odfa.session.config import RunConfig
from odfa.settings import named, tag_of

BACKPROP, SHALLOW = "bp", "shallow"
"""The two arms whose difference in test score a comparison takes as 100 %."""


def _bp(run: RunConfig) -> RunConfig:
    """Backpropagation: every block learns by its true gradient."""
    return run.changed("rule", Backprop())


def _shallow(run: RunConfig) -> RunConfig:
    """The head learns alone, by its true gradient: shows whether the blocks learned at all."""
    return run.changed("rule", Shallow())


def _dfa(run: RunConfig) -> RunConfig:
    """A digital random projection of the error."""
    return replace(_fed(run), projection=replace(_digital(run), encoder=None))


def _tdfa(run: RunConfig) -> RunConfig:
    """The same with the error encoded as light would be given it."""
    return replace(_fed(run), projection=replace(_digital(run), encoder=_encoder(run)))


def _odfa(run: RunConfig) -> RunConfig:
    """The same through an OPU."""
    if isinstance(run.projection, OpticalSettings):
        return run
    return replace(_fed(run), projection=OpticalSettings(encoder=_encoder(run)))


def _identity(run: RunConfig) -> RunConfig:
    """The exact gradient in the last block, whose error is copied unprojected to the others: a control."""
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
"""Arms by name; the docstring of each says what its blocks learn by."""
_RULED = ("dfa", "tdfa", "odfa")
DEFAULT_ARM = "dfa"
"""The arm that a recipe trains unless one is named."""
DEFAULT_ARMS = f"{BACKPROP},{SHALLOW},dfa,odfa"
"""The arms that a comparison runs unless some are named."""


def trees(run: RunConfig, words: Sequence[str]) -> dict[str, RunConfig]:
    """Word → tree: each word is an arm, or ARM:RULE for a rule that is not the recipe's own.

    Raises:
        ConfigError: a name that is no arm or rule, a rule for an arm that has its own, a repetition, or no word.
    """
    if not words:
        raise ConfigError(f"arms: expected some of {', '.join(ARMS)}, got none")
    if len(set(words)) < len(words):
        raise ConfigError(f"arms: expected each of them once, got {','.join(words)}")
    return {word: arm(run, word) for word in words}


def arm(run: RunConfig, word: str) -> RunConfig:
    """The tree that an arm makes of a run.

    Raises:
        ConfigError: a name that is no arm or rule, or a rule for an arm that has its own.
    """
    name, colon, rule = word.partition(":")
    if name not in ARMS:
        raise ConfigError(f"arms: expected some of {', '.join(ARMS)}, got {name!r}")
    if not colon:
        return ARMS[name](run)
    if name not in _RULED:
        raise ConfigError(f"arms: expected ARM:RULE with one of {', '.join(_RULED)}, got {word}")
    try:
        chosen = named(AbstractRule, rule, before=run.rule)
    except ConfigError as error:
        raise ConfigError(f"arms: {error}") from error
    if not chosen.projects:
        raise ConfigError(f"arms: rule {rule} projects nothing, expected one that does in {word}")
    return ARMS[name](run.changed("rule", chosen))


def name_of(run: RunConfig) -> str:
    """Name of the arm that gives this tree; of none, the kind of its projection or, without one, of its rule."""
    found = next((name for name, make in ARMS.items() if make(run) == run), None)
    return found or tag_of(run.rule if run.projection is None else run.projection)


def _fed(run: RunConfig) -> RunConfig:
    """The run with its own rule, or with random feedback where its own projects nothing."""
    return run if run.rule.projects else run.changed("rule", RandomFeedback())


def _digital(run: RunConfig) -> DigitalSettings:
    """The run's own digital projection, or a Gaussian one if it has none."""
    return run.projection if isinstance(run.projection, DigitalSettings) else GaussianSettings()


def _encoder(run: RunConfig) -> EncoderSettings:
    """The run's own encoder, or the stochastic one if it has none."""
    own = run.projection.encoder if isinstance(run.projection, DigitalSettings | OpticalSettings) else None
    return own or StochasticSettings()
