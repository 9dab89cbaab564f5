"""Off-axis holography: one frame per pattern; the tilted reference separates the field in the Fourier plane.

Shape letters: `N` samples · `F` patterns per sample · `P Q` camera rows, columns · `M` modes in the pupil.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from odfa import fourier
from odfa.demodulate.base import AbstractDemodulator, DemodulatorSettings, check_frames, float_dtype
from odfa.errors import ConfigError, Incompatible
from odfa.flow import Arm, Capture, Field, Frames, View

_LEAST_SIDE = 16
"""Smaller regions have too few Fourier bins for a round pupil."""
_PIXELS_AT_A_TIME, _PIXELS_ON_DEVICE = 2**18, 2**24
"""Pixels transformed at once, on the CPU and elsewhere: batches are faster than single images, until they no longer fit
the cache."""


class OffAxis(AbstractDemodulator):
    """Tilted reference R = r exp(2 pi i nu x): one frame holds the whole field, two frames one ternary error.

    |E + R|^2 = |E|^2 + r^2 + E R* + E* R. E has its spectrum in a disc, the pupil, of radius b around zero, so |E|^2
    fills a disc of radius 2b, and E R* one of radius b around -nu: with |nu| >= 3b nothing overlaps. The modes are the
    Fourier coefficients inside the pupil: independent, as many as the camera can tell apart, with nothing to resample.

        field_M = sqrt(M / P Q) / counts_per_field * [F sum_F gain_F counts_FPQ](pupil bin - carrier)

    with F the unitary transform: recombination is linear and comes first, so static light cancels between plus and
    minus patterns and each sample costs one transform. At best pi b^2 = 8.1 % of the pixels become modes (see
    `odfa.fourier.orders_overlap`). Leith & Upatnieks, J. Opt. Soc. Am. 52, 1123 (1962); Cuche, Marquet & Depeursinge,
    Appl. Opt. 39, 4070 (2000).
    """

    arm: Arm = "tilted"

    def __init__(self, *, flat_field: bool = False) -> None:
        """Choose whether to take out the reference's own structure.

        Args:
            flat_field: show the reference alone once per run (no mirror lit) and divide the field by it, which removes
                ripple that is slow against the pupil; without it ripple only mixes neighbouring modes, which is one
                more fixed linear map.

        Raises:
            ConfigError: `flat_field` is not a truth value.
        """
        if not isinstance(flat_field, bool):
            raise ConfigError(f"flat_field must be True or False, got {flat_field!r}")
        self._flat_field = flat_field
        self.shared_frames = int(flat_field)
        self.name = "off_axis(flat_field)" if flat_field else "off_axis()"

    def __repr__(self) -> str:
        return self.name

    def expand(self, frames: Frames) -> Frames:
        """Ask for a tilted reference, and for one frame of it alone if it is to be divided by."""
        dark_AD = frames.bits_NFD.new_zeros((1, frames.bits_NFD.shape[2])) if self._flat_field else None
        return replace(frames, arm=self.arm, phase_S=(), shared_AD=dark_AD)

    def exposures(self, num_patterns: int) -> int:
        """One frame for each pattern."""
        return num_patterns

    def roi(self, num_modes: int, view: View) -> tuple[int, int]:
        """Smallest region, square where the camera allows, whose pupil holds `num_modes`.

        Raises:
            Incompatible: no carrier or pupil, a camera too small, or interference orders that overlap.
        """
        if view.carrier_cpp is None or view.pupil_cpp is None:
            raise Incompatible(
                "off_axis() needs an OPU with a tilted reference that states carrier_cpp and pupil_cpp; "
                "PhaseSteps() or Anchor() may fit"
            )
        # pi b^2 P Q is the number of bins in the pupil on average; near its rim it is off by a few, so the region is
        # grown until the bins have been counted
        least = num_modes / (math.pi * view.pupil_cpp**2)
        side = max(_LEAST_SIDE, math.isqrt(int(least)))
        while True:
            rows = min(_smooth(side), view.shape[0])
            cols = _smooth(max(_LEAST_SIDE, side, math.ceil(least / rows)))
            if rows > view.shape[0] or cols > view.shape[1]:
                most = len(fourier.pupil_bins(view)[0])
                raise Incompatible(
                    f"off_axis() reads at most about {most} modes with {view.shape[0]} x {view.shape[1]} pixels, the "
                    f"blocks need {num_modes}; use PhaseSteps(), which takes one pixel per mode, or share one slice"
                )
            region = replace(view, shape=(rows, cols))
            if len(fourier.pupil_bins(region)[0]) >= num_modes:
                break
            side, least = side + 2, least * 1.01
        if fourier.orders_overlap(region):
            raise Incompatible(
                f"the interference orders overlap: carrier {view.carrier_cpp} and pupil {view.pupil_cpp} cycles per "
                "pixel; expected a carrier three pupil radii from zero and one from the edge of the band (0.5)"
            )
        return region.shape

    def demodulate(self, capture: Capture, frames: Frames) -> Field:
        """Field of each sample and of every mode in the pupil of the region read.

        Raises:
            FrameMismatch: the capture does not hold one frame per pattern of `frames`.
        """
        check_frames(self.name, capture, frames)
        counts_NFPQ, acquisition = capture.counts_NFPQ, capture.acquisition
        view = acquisition.view
        device = counts_NFPQ.device
        bins_M = _interference(view, device)
        scale = math.sqrt(len(bins_M) / view.num_pixels) / acquisition.counts_per_field
        gain_NF = (frames.gain_NF.double() * scale).to(float_dtype(capture))
        field_NM = torch.empty((len(gain_NF), len(bins_M)), dtype=torch.complex64, device=device)
        step = max(1, (_PIXELS_AT_A_TIME if device.type == "cpu" else _PIXELS_ON_DEVICE) // view.num_pixels)
        for start in range(0, len(gain_NF), step):
            rows = slice(start, start + step)
            hologram_nPQ = torch.einsum("nf,nfpq->npq", gain_NF[rows], counts_NFPQ[rows].to(gain_NF.dtype))
            field_NM[rows] = _gather(hologram_nPQ, bins_M)
        if capture.shared_APQ is not None:
            field_NM = _flattened(field_NM, capture.shared_APQ[0], view)
        return Field(field_NM=field_NM)


def _smooth(size: int) -> int:
    """Smallest even number from `size` on whose only prime factors are 2, 3 and 5: quick to transform."""
    size += size % 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


@lru_cache(maxsize=64)
def _interference(view: View, device: torch.device) -> Tensor:
    """Index of every mode's interference E R* in the flattened spectrum: its pupil bin less the carrier."""
    rows_M, cols_M = fourier.pupil_bins(view)
    row, col = fourier.carrier_bin(view)
    return fourier.flat_index(rows_M - row, cols_M - col, view.shape).to(device)


def _gather(value_nPQ: Tensor, bins_M: Tensor) -> Tensor:
    """Unitary spectrum of real images at the bins asked for, by a half-size transform."""
    # the other half of a real image's spectrum is the conjugate of this one: half the time and memory
    num_rows, num_cols = value_nPQ.shape[-2:]
    half_nPH = torch.fft.rfft2(value_nPQ, norm="backward")  # scaled by hand: see odfa.fourier
    row_M, col_M = bins_M // num_cols, bins_M % num_cols
    mirrored_M = col_M > num_cols // 2  # a real image's spectrum is F(-k) = F(k)*
    row_M = torch.where(mirrored_M, -row_M % num_rows, row_M)
    col_M = torch.where(mirrored_M, num_cols - col_M, col_M)
    found_nM = half_nPH.flatten(1)[:, row_M * half_nPH.shape[-1] + col_M]
    found_nM = torch.where(mirrored_M, found_nM.conj(), found_nM)
    return found_nM / math.sqrt(num_rows * num_cols)


def _flattened(field_NM: Tensor, reference_PQ: Tensor, view: View) -> Tensor:
    """Divide the field on the camera by the slow part of the reference's amplitude, relative to its mean.

    |R|^2 is measured with all mirrors dark; the slow part of its square root is what passes the pupil.
    """
    # Only the slow part: what is finer than a speckle grain cannot be told from noise of the one frame, and dividing by
    # it would bring that noise into every field. At least 0.05, where the reference is too dark to divide by.
    centre_M = fourier.pupil_index(view, field_NM.device)
    amplitude_PQ = reference_PQ.double().clamp_(min=0).sqrt()
    slow_PQ = _spread(_gather(amplitude_PQ[None], centre_M), centre_M, view)[0].real
    flat_PQ = (slow_PQ / slow_PQ.mean()).clamp_(min=0.05)
    level = slow_PQ.mean() ** 2 / reference_PQ.double().mean()  # the demodulator is scaled by the rms amplitude
    field_NPQ = _spread(field_NM.to(torch.complex128), centre_M, view) / flat_PQ
    spectrum_NK = fourier.fft2(field_NPQ).flatten(1)
    return (spectrum_NK[:, centre_M] / level.sqrt()).to(field_NM.dtype)


def _spread(spectrum_NM: Tensor, centre_M: Tensor, view: View) -> Tensor:
    """Camera-plane image (N, P, Q) of pupil coefficients."""
    full_NK = spectrum_NM.new_zeros((len(spectrum_NM), view.num_pixels), dtype=torch.complex128)
    full_NK[:, centre_M] = spectrum_NM.to(torch.complex128)
    return fourier.ifft2(full_NK.view(-1, *view.shape))


@dataclass(frozen=True, kw_only=True)
class OffAxisSettings(DemodulatorSettings, kind="offaxis"):
    """The reference arrives under an angle; one frame a pattern."""

    flat_field: bool = False
    """Show the reference alone once per run and divide the field by it, which removes slow ripple."""

    def build(self) -> OffAxis:
        """`OffAxis(flat_field=...)` with this value."""
        return OffAxis(flat_field=self.flat_field)
