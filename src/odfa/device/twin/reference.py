"""The reference arm: a plane wave of known amplitude and phase, added to the speckle field.

Shape letters: `F` patterns · `S` reference phases · `M` optical modes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odfa.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Reference:
    """How strong the reference is, relative to the light that the mirrors are expected to send."""

    ratio: float = 16.0
    """Intensity of the reference over the mean intensity of the signal at the nominal density."""
    nominal_density: float = 0.3
    """Share of lit mirrors for which ratio and exposure are set."""

    def __post_init__(self) -> None:
        if not 0.01 <= self.ratio <= 10_000:
            raise ConfigError(f"the reference ratio must be between 0.01 and 10000, got {self.ratio!r}")
        if not 0.0 < self.nominal_density <= 1.0:
            raise ConfigError(
                f"nominal_density must be in (0, 1], a share of the mirrors; got {self.nominal_density!r}"
            )

    def amplitude(self, num_inputs: int) -> float:
        """r, in units where one lit input gives a field of mean square 1: r^2 = ratio * nominal_density * D."""
        return math.sqrt(self.ratio * self.nominal_density * num_inputs)

    def nominal_intensity(self, num_inputs: int) -> float:
        """Mean of |s|^2 + r^2 at the nominal density, in the same units."""
        return (1.0 + self.ratio) * self.nominal_density * num_inputs


def interfere(real_FM: Tensor, imag_FM: Tensor, amplitude: float, phase_S: tuple[float, ...]) -> Tensor:
    """Intensity |s + r e^(i theta)|^2 = |s|^2 + r^2 + 2 r (Re s cos theta + Im s sin theta), shape (F, S, M).

    Without phases the reference stands at theta = 0 and S is 1.
    """
    phases = phase_S or (0.0,)
    background_FM = (real_FM.square() + imag_FM.square()).add_(amplitude**2)
    intensity_FSM = real_FM.new_empty((len(real_FM), len(phases), real_FM.shape[1]))
    for k, theta in enumerate(phases):
        torch.add(background_FM, real_FM, alpha=2 * amplitude * math.cos(theta), out=intensity_FSM[:, k])
        intensity_FSM[:, k].add_(imag_FM, alpha=2 * amplitude * math.sin(theta))
    return intensity_FSM.clamp_(min=0)  # rounding can leave a dark fringe slightly below zero
