"""Phase-shifting holography: the reference arm steps its phase, the camera sees each step."""

import cmath
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from odfa.demodulate.base import AbstractDemodulator, DemodulatorSettings, check_frames, float_dtype
from odfa.errors import ConfigError
from odfa.flow import Arm, Capture, Field, Frames
from odfa.settings import Settings, require


class PhaseSteps(AbstractDemodulator):
    """Three or four equal steps of the reference phase, theta_k = 2 pi k / S; every pixel is a mode.

    With I_k = |E + r e^(i theta_k)|^2, (1/S) sum_k I_k e^(i theta_k) = r E; for four steps this reads
    (I_0 - I_2) / 4 + i (I_1 - I_3) / 4. Yamaguchi & Zhang, Opt. Lett. 22, 1268 (1997).
    Background that does not follow the reference phase cancels within each set of steps; what still leaks through
    (uneven steps, a patterned reference) is the same for plus and minus patterns and cancels between them.
    """

    arm: Arm = "stepped"

    def __init__(self, steps: Literal[3, 4] = 4) -> None:
        """Choose the number of steps.

        Raises:
            ConfigError: `steps` is neither 3 nor 4.
        """
        if steps not in (3, 4):
            raise ConfigError(f"phase-shifting holography takes 3 or 4 steps here, got {steps!r}")
        self._phase_S = tuple(2 * math.pi * k / steps for k in range(steps))
        self.name = f"phase_steps({steps})"

    def __repr__(self) -> str:
        return self.name

    def expand(self, frames: Frames) -> Frames:
        """Ask for every pattern at every reference phase."""
        return replace(frames, phase_S=self._phase_S, arm=self.arm)

    def exposures(self, num_patterns: int) -> int:
        """Frames for `num_patterns` patterns: one per step each."""
        return num_patterns * len(self._phase_S)

    def demodulate(self, capture: Capture, frames: Frames) -> Field:
        """Field of each sample and mode, in the units where one lit input gives a mean square of 1.

        field_NM = sum_F gain_NF (1/S) sum_S counts_NFSM e^(i theta_S) / counts_per_field

        Raises:
            FrameMismatch: the capture does not hold one frame per pattern and phase of `frames`.
        """
        check_frames(self.name, capture, frames)
        counts_NFM, dtype = capture.counts_NFPQ.flatten(2), float_dtype(capture)
        weight_N2F = _weights(frames.gain_NF.to(dtype) / capture.acquisition.counts_per_field, frames.phase_S)
        quadratures_N2M = weight_N2F @ counts_NFM.to(dtype)
        return Field(field_NM=torch.complex(quadratures_N2M[:, 0], quadratures_N2M[:, 1]).to(torch.complex64))


def _weights(gain_NF: Tensor, phase_S: tuple[float, ...]) -> Tensor:
    """Real and imaginary weight of every shown frame, shape (N, 2, F * S): gain_NF e^(i theta_S) / S."""
    step_S = [cmath.exp(1j * phase) / len(phase_S) for phase in phase_S]
    step_2S = torch.tensor([[z.real for z in step_S], [z.imag for z in step_S]], dtype=gain_NF.dtype).to(gain_NF.device)
    return (gain_NF[:, None, :, None] * step_2S[None, :, None, :]).flatten(2)


@dataclass(frozen=True, kw_only=True)
class PhaseStepsSettings(DemodulatorSettings, kind="phase"):
    """The reference steps its phase; every camera pixel is a mode."""

    steps: int = 4
    """Equal steps of the reference phase, 3 or 4; as many frames a pattern."""
    presets: ClassVar[Mapping[str, Callable[[], Settings]]] = {"phase3": lambda: PhaseStepsSettings(steps=3)}

    def __post_init__(self) -> None:
        require(self.steps in (3, 4), "steps", "3 or 4", self.steps)

    def build(self) -> PhaseSteps:
        """`PhaseSteps(steps)` with this number of steps."""
        return PhaseSteps(3 if self.steps == 3 else 4)
