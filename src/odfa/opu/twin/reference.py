"""The reference arm: a plane wave of known amplitude, phase and direction, added to the speckle field.

Shape letters: `F` patterns · `S` reference phases · `M` optical modes or pixels · `P Q` camera rows, columns.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odfa import arguments, fourier
from odfa.flow import View
from odfa.settings import SettingError, Settings, require


@dataclass(frozen=True, kw_only=True)
class Reference(Settings):
    """How strong the reference is, relative to the light expected from the mirrors, and its direction."""

    ratio: float = 16.0
    """Intensity of the reference over the mean intensity of the signal at the nominal density."""
    nominal_density: float = 0.3
    """Share of lit mirrors for which ratio and exposure are set."""
    ripple: float | None = None
    """Amplitude of a standing ripple on the reference, relative; None: a clean beam."""
    ripple_px: float = 64.0
    """Period of the ripple along the camera's diagonal, pixels."""
    carrier_cpp: tuple[float, float] = (0.33, 0.33)
    """Tilted arm: fringes, cycles per pixel along rows and columns; on the diagonal there is most room."""
    pupil_cpp: float = 0.141
    """Tilted arm: radius of the signal's spectrum, cycles per pixel; 0.141 gives 16 camera pixels per mode."""

    def __post_init__(self) -> None:
        arguments.real("ratio", self.ratio, 0.01, 10_000.0)
        arguments.real("nominal_density", self.nominal_density, 0.0, 1.0, open_low=True)
        if self.ripple is not None:
            arguments.real("ripple", self.ripple, 0.0, 1.0, open_high=True)
        arguments.real("ripple_px", self.ripple_px, 2.0, math.inf, open_high=True)
        arguments.all_in("carrier_cpp", self.carrier_cpp, 2, -0.5, 0.5)
        arguments.real("pupil_cpp", self.pupil_cpp, 0.0, 0.5, open_low=True, open_high=True)
        if not all(self.carrier_cpp):  # on an axis the conjugate order falls on the same rows or columns
            raise SettingError("carrier_cpp", f"expected no zero along an axis, got {self.carrier_cpp}")
        acts = self.ripple is not None or self.ripple_px == type(self).ripple_px
        require(acts, "ripple_px", "nothing set with ripple=none", self.ripple_px)

    def amplitude(self, num_inputs: int) -> float:
        """r, in units where one lit input gives a field of mean square 1: r^2 = ratio * nominal_density * D."""
        return math.sqrt(self.ratio * self.nominal_density * num_inputs)

    def nominal_intensity(self, num_inputs: int) -> float:
        """Mean of |s|^2 + r^2 at the nominal density, in the same units."""
        return (1.0 + self.ratio) * self.nominal_density * num_inputs

    def profile(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device | None = None) -> Tensor | None:
        """The reference over its mean amplitude at each pixel, flattened (P * Q,); None for a clean beam."""
        if not self.ripple:
            return None
        place_P, place_Q = (torch.arange(size, dtype=torch.float64, device=device) for size in shape)
        place_PQ = place_P[:, None] + place_Q
        return (1.0 + self.ripple * torch.cos(2 * math.pi * place_PQ / self.ripple_px)).flatten().to(dtype)


def interfere(real_FM: Tensor, imag_FM: Tensor, amplitude: float, phase_FS: Tensor, profile_M: Tensor | None) -> Tensor:
    """Intensity |s + r e^(i theta)|^2 = |s|^2 + r^2 + 2 r (Re s cos theta + Im s sin theta), shape (F, S, M).

    `phase_FS` holds theta of every frame (float64); the reference is r * profile_M where a profile is given.
    """
    # |s|^2 + r^2 once a pattern, then two multiply-adds for each phase: expanding the square saves forming S complex
    # fields and their moduli
    background_FM = real_FM.square() + imag_FM.square()
    if profile_M is None:
        background_FM.add_(amplitude**2)
    else:
        background_FM.add_((amplitude * profile_M).square_())
        real_FM, imag_FM = real_FM * profile_M, imag_FM * profile_M
    cos_FS, sin_FS = (2 * amplitude * wave_FS.to(real_FM.dtype) for wave_FS in (phase_FS.cos(), phase_FS.sin()))
    intensity_FSM = real_FM.new_empty((len(real_FM), phase_FS.shape[1], real_FM.shape[1]))
    for k in range(phase_FS.shape[1]):
        torch.addcmul(background_FM, real_FM, cos_FS[:, k, None], out=intensity_FSM[:, k])
        intensity_FSM[:, k].addcmul_(imag_FM, sin_FS[:, k, None])
    return intensity_FSM.clamp_(min=0)  # rounding can leave a dark fringe slightly below zero


def image(real_FM: Tensor, imag_FM: Tensor, view: View) -> Tensor:
    """Complex speckle field (F, P, Q) on the camera, whose spectrum holds the modes within the pupil disc.

    E_PQ = sqrt(P Q / M) * unitary inverse transform of the M pupil bins, so that pixels have the modes' mean square.
    """
    bins_M = fourier.pupil_index(view, real_FM.device)
    scale = math.sqrt(view.num_pixels / len(bins_M))
    mode_FM = torch.complex(real_FM, imag_FM).mul_(scale)
    spectrum_FN = mode_FM.new_zeros((len(mode_FM), view.num_pixels))
    spectrum_FN[:, bins_M] = mode_FM
    return fourier.ifft2(spectrum_FN.view(-1, *view.shape))


def tilted_wave(
    amplitude: float, view: View, profile_N: Tensor | None, dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """r exp(2 pi i nu r) at every pixel, complex (P, Q), with the carrier on the Fourier bin nearest to nu."""
    # on a whole Fourier bin, so that the interference fills bins exactly as the pupil does, without leakage
    row, col = fourier.carrier_bin(view)
    place_P, place_Q = (torch.arange(size, dtype=torch.float64, device=device) for size in view.shape)
    turns_P, turns_Q = place_P * row / view.shape[0], place_Q * col / view.shape[1]
    angle_PQ = 2 * math.pi * (turns_P[:, None] + turns_Q[None, :])
    modulus_PQ = torch.full_like(angle_PQ, amplitude)
    if profile_N is not None:
        modulus_PQ *= profile_N.view(view.shape)
    return torch.polar(modulus_PQ, angle_PQ).to(dtype)


def interfere_tilted(real_FM: Tensor, imag_FM: Tensor, phase_F: Tensor, wave_PQ: Tensor, view: View) -> Tensor:
    """Intensity |E + e^(i theta) R|^2 of every frame and pixel, shape (F, 1, P * Q), R the tilted wave."""
    field_FPQ = image(real_FM, imag_FM, view)
    turn_F = torch.polar(torch.ones_like(phase_F), phase_F).to(field_FPQ.dtype)
    field_FPQ.addcmul_(turn_F[:, None, None], wave_PQ)
    return field_FPQ.abs().square_().flatten(1)[:, None]
