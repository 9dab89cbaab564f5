"""Ternary errors on a binary modulator: a plus pattern and a minus pattern per sample."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from odfa.encode import quantise
from odfa.encode.base import EncoderSettings, check_rows
from odfa.encode.drawing import DrawingEncoder
from odfa.errors import ConfigError
from odfa.flow import Entries, Frames
from odfa.settings import require

Quantiser = Literal["stochastic", "best_cosine", "relative_max", "sampled"]
_RANDOM: tuple[Quantiser, ...] = ("stochastic", "sampled")
_THRESHOLD = 0.5
_MAX_REPEATS = 10_000


class Ternary(DrawingEncoder):
    """Each row becomes t in {-1, 0, +1} times a scale of its own: bits p = [t > 0] and q = [t < 0], gains +-scale.

    All is relative to the row, so encoding is scale-equivariant: c e gives the same bits and c times the gains.

    - `stochastic`: entry i is kept with probability |e_i| / max|e|; unbiased. For narrow errors (10 classes).
    - `sampled`: one index per sign drawn in proportion to |e_i|; unbiased, two are lit. For wide errors (vocabularies).
    - `best_cosine`: the threshold that maximises cos(e, t); deterministic. For dense regression errors.
    - `relative_max`: |e_i| > threshold * max|e|; deterministic.

    >>> Ternary(quantiser="relative_max").encode(torch.tensor([[4.0, -3.0, 1.0]])).values()
    tensor([[ 3.5000, -3.5000,  0.0000]])
    """

    stream = int.from_bytes(b"ternary")

    def __init__(
        self, quantiser: Quantiser = "stochastic", *, threshold: float | None = None, repeats: int = 1, seed: int = 0
    ) -> None:
        """Choose the quantiser.

        Args:
            quantiser: how entries become -1, 0, +1 (see the class).
            threshold: share of the row's largest magnitude that an entry must exceed; `relative_max` only, 0.5 there.
            repeats: independent draws per row, averaged, two more patterns for each; random quantisers only.
            seed: key of the draws.

        Raises:
            ConfigError: an argument is out of range, `repeats` > 1 with a deterministic quantiser, or a threshold for a
                quantiser that has none.
        """
        if quantiser not in get_args(Quantiser):
            raise ConfigError(f"quantiser must be one of {', '.join(get_args(Quantiser))}, got {quantiser!r}")
        if threshold is not None and not 0.0 <= threshold < 1.0:
            raise ConfigError(
                f"threshold must be in [0, 1), a share of the largest magnitude of the row; got {threshold!r}"
            )
        if threshold is not None and quantiser != "relative_max":
            raise ConfigError(
                f"threshold: expected none, for {quantiser} has no threshold, got {threshold!r}; use "
                'quantiser="relative_max", or leave it out'
            )
        threshold = _THRESHOLD if threshold is None else threshold
        if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
            raise ConfigError(f"repeats must be an integer of at least 1, got {repeats!r}")
        if repeats > 1 and quantiser not in _RANDOM:
            raise ConfigError(
                f"{quantiser} is deterministic, repeats={repeats} would show the same patterns again; use repeats=1"
            )
        super().__init__(seed)
        self._quantiser, self._threshold, self._repeats = quantiser, threshold, repeats
        details = (
            f", threshold={threshold:g}" if quantiser == "relative_max" else f", repeats={repeats}" * (repeats > 1)
        )
        self.name = f"ternary({quantiser}{details})"

    def __repr__(self) -> str:
        return self.name

    @property
    def patterns_per_sample(self) -> int:
        """Two patterns, plus and minus, per repeat."""
        return 2 * self._repeats

    def encode(self, e_ND: Tensor) -> Frames:
        """Ternary code of each row; rows of zeros give dark patterns with gain zero.

        Raises:
            ConfigError: `e_ND` is not a matrix of floating-point numbers with at least one column.
        """
        bits_NFD, gain_NF = self._quantise(check_rows(e_ND))
        return Frames(bits_NFD=bits_NFD, gain_NF=gain_NF, encoder=self.name)

    @property
    def lights_one(self) -> bool:
        """Whether the quantiser is `sampled`."""
        return self._quantiser == "sampled"

    def entries(self, e_ND: Tensor) -> Entries:
        """The drawn entries of each row; of the quantiser `sampled`.

        Raises:
            ConfigError: another quantiser, or rows that `encode` does not take.
        """
        if not self.lights_one:
            return super().entries(e_ND)
        index_NF, gain_NF = quantise.drawn_entries(check_rows(e_ND), repeats=self._repeats, draws=self.next_draws())
        return Entries(index_NF=index_NF, gain_NF=gain_NF, num_inputs=e_ND.shape[1])

    def _quantise(self, e_ND: Tensor) -> tuple[Tensor, Tensor]:
        if self._quantiser == "best_cosine":
            return quantise.best_cosine(e_ND)
        if self._quantiser == "relative_max":
            return quantise.relative_max(e_ND, threshold=self._threshold)
        draw = quantise.stochastic if self._quantiser == "stochastic" else quantise.sampled
        return draw(e_ND, repeats=self._repeats, draws=self.next_draws())


@dataclass(frozen=True, kw_only=True)
class TernarySettings(EncoderSettings):
    """What all ternary encoders have in common."""

    @property
    def code(self) -> str:
        """The word "ternary"."""
        return "ternary"


@dataclass(frozen=True, kw_only=True)
class RandomTernarySettings(TernarySettings):
    """What ternary encoders that draw have in common."""

    repeats: int = 1
    """Independent draws of a row that are averaged; two patterns each."""

    def __post_init__(self) -> None:
        require(0 < self.repeats <= _MAX_REPEATS, "repeats", f"1 to {_MAX_REPEATS}", self.repeats)


@dataclass(frozen=True, kw_only=True)
class StochasticSettings(RandomTernarySettings, kind="stochastic"):
    """Entry i is kept with probability |e_i| / max|e|; unbiased. For narrow errors (10 classes)."""

    def build(self, seed: int) -> Ternary:
        """`Ternary("stochastic")` with the key `seed`."""
        return Ternary("stochastic", repeats=self.repeats, seed=seed)


@dataclass(frozen=True, kw_only=True)
class SampledSettings(RandomTernarySettings, kind="sampled"):
    """One index per sign is drawn in proportion to |e_i|; unbiased. For wide errors (vocabularies)."""

    def build(self, seed: int) -> Ternary:
        """`Ternary("sampled")` with the key `seed`."""
        return Ternary("sampled", repeats=self.repeats, seed=seed)


@dataclass(frozen=True, kw_only=True)
class BestCosineSettings(TernarySettings, kind="best_cosine"):
    """The threshold of each row that maximises cos(e, t); deterministic. For dense errors of regressions."""

    def build(self, seed: int) -> Ternary:
        """`Ternary("best_cosine")`; nothing is drawn with `seed`."""
        return Ternary("best_cosine", seed=seed)


@dataclass(frozen=True, kw_only=True)
class RelativeMaxSettings(TernarySettings, kind="relative_max"):
    """Entries above a fixed share of the row's largest are kept; deterministic."""

    threshold: float = _THRESHOLD
    """Share of the row's largest magnitude that an entry must exceed."""

    def __post_init__(self) -> None:
        require(0 <= self.threshold < 1, "threshold", "a number in [0, 1)", self.threshold)

    def build(self, seed: int) -> Ternary:
        """`Ternary("relative_max")`; nothing is drawn with `seed`."""
        return Ternary("relative_max", threshold=self.threshold, seed=seed)
