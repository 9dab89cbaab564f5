"""Records that the stages hand to one another: frozen, each with a `check()`.

Shape letters of the whole package: `N` samples (batch x tokens, flattened) · `D` error width ·
`F` patterns per sample · `A` patterns shared by all samples · `S` reference phases per pattern ·
`P Q` camera rows, columns · `M` optical modes or projection outputs · `K` width of one block's signal ·
`B T C` batch, time, channels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

import torch
from torch import Tensor

from odfa.errors import ConfigError

Arm = Literal["blocked", "stepped", "tilted"]
"""What the reference arm does during a capture: it is shut, it steps its phase, or it arrives under an angle."""


def wide(values: Tensor) -> Tensor:
    """The same values in float32 where they have half precision."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


@dataclass(frozen=True, kw_only=True)
class Light:
    """What a projection costs in light: frames shown, seconds on the optical bench, joules, operations.

    `ops_peak` counts 2 x mirrors x camera pixels that the OPU could have read in this time; `ops_useful` counts
    2 x D x M for each projected vector (what was asked for). Digital projections cost no light: all zeros.
    """

    frames: int = 0
    seconds: float = 0.0
    joules: float = 0.0
    ops_peak: float = 0.0
    ops_useful: float = 0.0

    @property
    def utilisation(self) -> float:
        """Useful over peak operations; 0 without light."""
        return self.ops_useful / self.ops_peak if self.ops_peak else 0.0

    def __add__(self, other: "Light") -> "Light":
        return Light(
            frames=self.frames + other.frames,
            seconds=self.seconds + other.seconds,
            joules=self.joules + other.joules,
            ops_peak=self.ops_peak + other.ops_peak,
            ops_useful=self.ops_useful + other.ops_useful,
        )

    def figures(self) -> dict[str, float]:
        """The account and its utilisation as plain numbers.

        Seconds and joules are rounded to 12 digits, so that sums over many steps carry no rounding errors.
        """
        rounded = {name: float(f"{value:.12g}") for name, value in (("seconds", self.seconds), ("joules", self.joules))}
        return {**vars(self), **rounded, "utilisation": self.utilisation}

    def __sub__(self, other: "Light") -> "Light":
        return Light(**{name: value - getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class ErrorSignal:
    """Stage 1 → 2: the output error e = dL/dy, one row per sample or token, in float32 or better.

    In bfloat16 it comes only where the device multiplies that as it is, to feedback that `takes_half`.

    `lead` is the shape that the rows were flattened from: (B, T) for sequences, (B,) otherwise. Rows that are exactly
    zero (padding, labels of -100) are skipped by the projection and cost no light.

    `known_targets` and `known_products`, None unless the rule needs them, are read as `targets` and `products`.
    """

    e_ND: Tensor
    tap: str
    lead: tuple[int, ...]
    known_targets: Tensor | None = None
    known_products: Callable[[Sequence[Tensor]], Tensor] | None = None

    @property
    def like(self) -> Tensor:
        """No rows, of the error's width, dtype and device."""
        return self.e_ND[:0]

    def chunks(self) -> Iterator[Tensor]:
        """The rows in order, some at a time; an error that is there as a whole comes at once."""
        yield self.e_ND

    def widened(self) -> "ErrorSignal":
        """The same in float32 or better."""
        return replace(self, e_ND=wide(self.e_ND))

    def each(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        """`change` of the rows, some at a time, as one tensor of a row for each."""
        rows, made, place = prod(self.lead), None, 0
        for e_nD in self.chunks():
            part = change(e_nD)
            del e_nD  # before the next rows are made
            if len(part) == rows:
                made = part
                continue
            made = part.new_empty(rows, *part.shape[1:]) if made is None else made
            made[place : place + len(part)] = part
            place += len(part)
        return change(self.like) if made is None else made

    @property
    def targets(self) -> Tensor:
        """What outputs should have been, one row per row of the error: (N,) labels or (N, …) values.

        Labels are as they were handed over, with -100 where they have it.

        Raises:
            ConfigError: the rule does not declare that it needs targets.
        """
        if self.known_targets is None:
            raise ConfigError(
                f"the targets of the error at {self.tap} were not asked for; write needs = frozenset({{'error', "
                "'targets'}) in the rule's class"
            )
        return self.known_targets

    def products(self, directions: Sequence[Tensor]) -> Tensor:
        """t_ND = sum over calls of (dy/dh) u: how the outputs change along u at what the blocks returned.

        Args:
            directions: u of the call's shape, for each call of a block; the model runs once more, in forward mode.

        Raises:
            ConfigError: the rule does not declare that it needs forward products.
            MatchError: something in the model has no derivative in forward mode.
        """
        if self.known_products is None:
            raise ConfigError(
                f"forward products at {self.tap} were not asked for; write needs = frozenset({{'error', 'forward "
                "products'}) in the rule's class"
            )
        return self.known_products(directions)

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        _expect(
            self.e_ND.ndim == 2 and self.e_ND.is_floating_point(), f"e_ND must be a float matrix, got {self.e_ND.shape}"
        )
        _expect(prod(self.lead) == len(self.e_ND), f"lead {self.lead} must hold the {len(self.e_ND)} rows")
        known = self.known_targets
        _expect(known is None or len(known) == len(self.e_ND), "targets must have one row per error row")


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorInChunks(ErrorSignal):
    """An output error that is made some rows at a time, as all of them do not fit into memory: it has no `e_ND`."""

    e_ND: Tensor = field(init=False, repr=False)
    made: Callable[[], Iterator[Tensor]] = field(repr=False)
    like_0D: Tensor = field(repr=False)

    @property
    def like(self) -> Tensor:
        """No rows, of the error's width, dtype and device."""
        return self.like_0D

    def chunks(self) -> Iterator[Tensor]:
        """The rows in order, some at a time; they are made anew each time."""
        return self.made()

    def widened(self) -> ErrorSignal:
        """The same in float32 or better."""
        made = self.made
        return replace(self, like_0D=wide(self.like_0D), made=lambda: map(wide, made()))

    def __getattr__(self, name: str) -> Tensor:
        """Say why there is no `e_ND`.

        Raises:
            ConfigError: it was asked for.
        """
        if name != "e_ND":
            raise AttributeError(name)
        raise ConfigError(
            f"the error at {self.tap} is made some rows at a time; expected a rule that reads error.chunks() alone and "
            "says so by by_rows = True in its class"
        )

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        sizes = [tuple(e_nD.shape[1:]) for e_nD in self.chunks()]
        _expect(set(sizes) <= {tuple(self.like.shape[1:])}, f"chunks must be as wide as {self.like.shape}")


@dataclass(frozen=True, kw_only=True)
class View:
    """What the camera sees: its pixels, and where a tilted reference puts the interference in the Fourier plane.

    Frequencies are in cycles per pixel, row then column. The signal fills a disc of radius `pupil_cpp`; with a tilted
    reference its interference is a disc of that radius around the carrier. Both None: no tilted reference.
    """

    shape: tuple[int, int]
    carrier_cpp: tuple[float, float] | None = None
    pupil_cpp: float | None = None

    @property
    def num_pixels(self) -> int:
        """Number of camera pixels in the view, P * Q."""
        return prod(self.shape)


@dataclass(frozen=True)
class Share:
    """A count on its device, over a number known here; `float` waits for the device."""

    count: Tensor
    whole: float

    def __float__(self) -> float:
        return int(self.count) / self.whole

    def __add__(self, other: "Share") -> "Share":
        return Share(self.count + other.count, self.whole + other.whole)


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Stage 2 → 3: binary mirror patterns and the gains that recombine what they give.

    The vector they stand for is sum_F gain_NF * bits_NFD. Each pattern is shown once per reference phase in `phase_S`
    (radians; empty: the reference is not stepped), pattern by pattern, so F * max(1, S) frames are shown per sample.
    The patterns `shared_AD` (an anchor, all mirrors dark) are shown once before the samples, at every phase too.
    `arm` is what the reference arm has to do meanwhile.
    """

    bits_NFD: Tensor
    gain_NF: Tensor
    encoder: str
    phase_S: tuple[float, ...] = ()
    arm: Arm = "stepped"
    shared_AD: Tensor | None = None

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        _expect(self.bits_NFD.dtype == torch.bool and self.bits_NFD.ndim == 3, "bits_NFD must be bool with 3 axes")
        _expect(self.gain_NF.shape == self.bits_NFD.shape[:2], "gain_NF must have one gain per pattern")
        shared_AD = self.shared_AD
        fits = shared_AD is None or (shared_AD.dtype == torch.bool and shared_AD.shape[1:] == self.bits_NFD.shape[2:])
        _expect(fits, "shared_AD must be bool with as many columns as bits_NFD")
        _expect(not self.phase_S or self.arm == "stepped", "only a stepped arm has phases")

    @property
    def frames_per_sample(self) -> int:
        """Camera frames that one sample takes: F * max(1, S)."""
        return self.bits_NFD.shape[1] * max(1, len(self.phase_S))

    @property
    def shared_frames(self) -> int:
        """Camera frames shown once before the samples: A * max(1, S)."""
        return (0 if self.shared_AD is None else len(self.shared_AD)) * max(1, len(self.phase_S))

    @property
    def patterns_FD(self) -> Tensor:
        """Every pattern in the order in which it is shown: the shared ones, then sample by sample."""
        bits_FD = self.bits_NFD.flatten(0, 1)
        return bits_FD if self.shared_AD is None else torch.cat([self.shared_AD, bits_FD])

    @property
    def density(self) -> float:
        """Share of non-zero entries per represented vector: lit mirrors over pairs of patterns, 2 / (N F D) * lit."""
        return float(self.density_there)

    @property
    def density_there(self) -> "Share":
        """The same, which nobody has waited for."""
        return Share(torch.count_nonzero(self.bits_NFD), max(1, self.bits_NFD.numel()) / 2)

    def values(self) -> Tensor:
        """The vectors the frames stand for, sum_F gain_NF * bits_NFD, shape (N, D)."""
        return torch.einsum("nf,nfd->nd", self.gain_NF, self.bits_NFD.to(self.gain_NF.dtype))


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Stage 2 → projections without light: patterns of one entry each, as the places of these entries and their gains.

    The vector they stand for is sum_F gain_NF * one_hot(index_NF), up to rounding `Frames.values` of the same code. A
    pattern whose gain is zero is dark.
    """

    index_NF: Tensor
    gain_NF: Tensor
    num_inputs: int

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        _expect(self.index_NF.dtype == torch.int64 and self.index_NF.ndim == 2, "index_NF must be int64 with 2 axes")
        _expect(self.gain_NF.shape == self.index_NF.shape, "gain_NF must have one gain per entry")

    @property
    def density(self) -> float:
        """`Frames.density` of the same code: 2 / (N F D) times the entries whose gain is not zero."""
        return float(self.density_there)

    @property
    def density_there(self) -> Share:
        """The same, which nobody has waited for."""
        return Share(torch.count_nonzero(self.gain_NF), max(1, self.gain_NF.numel() * self.num_inputs) / 2)

    def values(self) -> Tensor:
        """The vectors the entries stand for, shape (N, D)."""
        values_ND = self.gain_NF.new_zeros((len(self.gain_NF), self.num_inputs))
        return values_ND.scatter_add_(1, self.index_NF, self.gain_NF)

    def times(self, matrix_DM: Tensor) -> Tensor:
        """Those vectors times a matrix, by gathering its rows: (N, M)."""
        return torch.nn.functional.embedding_bag(self.index_NF, matrix_DM, mode="sum", per_sample_weights=self.gain_NF)

    def numbered(self) -> tuple[Tensor, "Entries"]:
        """The inputs that occur (U,), in order, and the same code over these inputs alone."""
        input_U, index_NF = torch.unique(self.index_NF, return_inverse=True)
        return input_U, replace(self, index_NF=index_NF, num_inputs=len(input_U))


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """How a capture was taken; recorded in the log of a run.

    Counts convert to fields in units where one lit input gives each mode a field of mean square 1:
    counts = counts_per_intensity * |E + reference|^2, so interference has counts_per_field = counts_per_intensity * r
    counts per unit of field. `view` holds the pixels read (the region of interest).
    """

    opu_id: str
    view: View
    exposure_s: float
    rate_hz: float
    saturated_fraction: float
    time_s: float
    counts_per_intensity: float
    counts_per_field: float
    calibration_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Stage 3 → 4: camera counts; the axis F holds all shown frames, pattern by pattern, phases innermost.

    `shared_APQ` are the frames of the patterns that all samples share, in the same order.
    """

    counts_NFPQ: Tensor
    acquisition: Acquisition
    shared_APQ: Tensor | None = None

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        _expect(
            self.counts_NFPQ.ndim == 4 and not self.counts_NFPQ.is_floating_point(),
            "counts_NFPQ must be integers, 4 axes",
        )
        _expect(self.counts_NFPQ.shape[2:] == self.acquisition.view.shape, "counts_NFPQ must fill the view")


@dataclass(frozen=True, kw_only=True)
class Field:
    """Stage 4 → 5: field per sample and mode, already recombined with the frames' gains.

    Complex from holography; real from demodulators that see one quadrature (anchor) or the intensity.
    """

    field_NM: Tensor
    diagnostics: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raise AssertionError unless shapes and types are as declared."""
        fits = self.field_NM.is_complex() or self.field_NM.is_floating_point()
        _expect(fits and self.field_NM.ndim == 2, "field_NM must be a matrix of complex or real numbers")


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """Stage 6 → 7: what one backward pass did."""

    signal_norms: dict[str, float]
    diagnostics: dict[str, float]
    light: Light
    projecting_s: float = 0.0
    """Seconds that stages 1 to 5 took on this machine: computing for a twin, waiting for an instrument."""
