"""What travels between the stages: frozen records, each with a `check()`.

Shape letters of the whole package: `N` samples (batch x tokens, flattened) · `D` error width ·
`F` patterns per sample · `S` reference phases per pattern · `P Q` camera rows, columns ·
`M` optical modes or projection outputs · `K` width of one block's signal · `B T C` batch, time, channels.
"""

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


@dataclass(frozen=True, kw_only=True)
class Light:
    """What a projection costs in light: frames shown, seconds on the optical bench, joules, operations.

    `ops_peak` counts 2 x mirrors x camera pixels that the device could have read in this time; `ops_useful` counts
    2 x D x M for each projected vector (what was asked for). Digital projections cost no light: all zeros.
    """

    frames: int = 0
    seconds: float = 0.0
    joules: float = 0.0
    ops_peak: float = 0.0
    ops_useful: float = 0.0

    def __add__(self, other: "Light") -> "Light":
        return Light(
            frames=self.frames + other.frames,
            seconds=self.seconds + other.seconds,
            joules=self.joules + other.joules,
            ops_peak=self.ops_peak + other.ops_peak,
            ops_useful=self.ops_useful + other.ops_useful,
        )

    def __sub__(self, other: "Light") -> "Light":
        return Light(**{name: value - getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class ErrorSignal:
    """Stage 1 → 2: the output error e = dL/dy, one row per sample or token.

    `lead` is the shape that the rows were flattened from: (B, T) for sequences, (B,) otherwise. Rows that are exactly
    zero (padding, labels of -100) are skipped by the projection and cost no light.
    """

    e_ND: Tensor
    tap: str
    lead: tuple[int, ...]

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        _expect(
            self.e_ND.ndim == 2 and self.e_ND.is_floating_point(), f"e_ND must be a float matrix, got {self.e_ND.shape}"
        )
        _expect(prod(self.lead) == len(self.e_ND), f"lead {self.lead} must hold the {len(self.e_ND)} rows")


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Stage 2 → 3: binary mirror patterns and the gains that recombine what they give.

    The vector they stand for is sum_F gain_NF * bits_NFD. Each pattern is shown once per reference phase in `phase_S`
    (radians; empty: the reference is not stepped), pattern by pattern, so F * max(1, S) frames are shown per sample.
    """

    bits_NFD: Tensor
    gain_NF: Tensor
    encoder: str
    phase_S: tuple[float, ...] = ()

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        _expect(self.bits_NFD.dtype == torch.bool and self.bits_NFD.ndim == 3, "bits_NFD must be bool with 3 axes")
        _expect(self.gain_NF.shape == self.bits_NFD.shape[:2], "gain_NF must have one gain per pattern")

    @property
    def frames_per_sample(self) -> int:
        """Camera frames that one sample takes: F * max(1, S)."""
        return self.bits_NFD.shape[1] * max(1, len(self.phase_S))

    @property
    def density(self) -> float:
        """Share of non-zero entries per represented vector: lit mirrors over pairs of patterns, 2 / (N F D) * lit."""
        return 2.0 * int(torch.count_nonzero(self.bits_NFD)) / max(1, self.bits_NFD.numel())

    def values(self) -> Tensor:
        """The vectors the frames stand for, sum_F gain_NF * bits_NFD, shape (N, D)."""
        return torch.einsum("nf,nfd->nd", self.gain_NF, self.bits_NFD.to(self.gain_NF.dtype))


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """How a capture was taken; rides along to the log."""

    device_id: str
    exposure_s: float
    rate_hz: float
    saturated_fraction: float
    time_s: float
    counts_per_field: float
    calibration_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Stage 3 → 4: camera counts; the axis F holds all shown frames, pattern by pattern, phases innermost.

    `acquisition.counts_per_field` converts: interference counts per unit of field, for fields normalised so that one
    lit input gives each mode a field of mean square 1.
    """

    counts_NFPQ: Tensor
    acquisition: Acquisition

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        _expect(
            self.counts_NFPQ.ndim == 4 and not self.counts_NFPQ.is_floating_point(),
            "counts_NFPQ must be integers, 4 axes",
        )


@dataclass(frozen=True, kw_only=True)
class Field:
    """Stage 4 → 5: complex field per sample and mode, already recombined with the frames' gains."""

    field_NM: Tensor
    diagnostics: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        _expect(self.field_NM.is_complex() and self.field_NM.ndim == 2, "field_NM must be a complex matrix")


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """Stage 6 → 7: what one backward pass did."""

    signal_norms: dict[str, float]
    diagnostics: dict[str, float]
    light: Light
