"""What moves between frames: the interferometer's phase, the laser's power, the medium, the warming mirrors.

Shape letters: `F` frames (every phase step is one) · `D` inputs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odfa.draws import Draws
from odfa.settings import Settings, require
from odfa.units import check_fields


@dataclass(frozen=True, kw_only=True)
class Drift(Settings):
    """Effects that change the light over time, each off unless set. Time is counted in light time, frame by frame."""

    phase_jitter_rad: float | None = None
    """Fluctuation of the reference phase from frame to frame, rms (fans, cables)."""
    phase_drift_rad_per_s: float | None = None
    """Steady drift of the reference phase (air, temperature)."""
    gain_jitter: float | None = None
    """Fluctuation of the laser's power from frame to frame, rms relative."""
    decorrelation_s: float | None = None
    """Time after which the medium has become another one: correlation cos(pi t / 2 T) with what it was at t = 0."""
    warmup_rad: float | None = None
    """Aberration of the cold mirror array at t = 0, rms over the array; decays over `warmup_s`."""
    warmup_s: float = 3600.0
    """Time constant of warming up; about an hour (Popoff et al., practical guide to digital micro-mirror devices)."""

    def __post_init__(self) -> None:
        check_fields(self)
        acts = self.warmup_rad is not None or self.warmup_s == type(self).warmup_s
        require(acts, "warmup_s", "nothing set with warmup_rad=none", self.warmup_s)

    def phase_F(self, time_F: Tensor, draws: Draws) -> Tensor:
        """Phase of the reference beyond the one asked for, rad: drift * t + jitter * N(0, 1), float64."""
        phase_F = time_F * (self.phase_drift_rad_per_s or 0.0)
        if self.phase_jitter_rad:
            phase_F = phase_F + self.phase_jitter_rad * _of_frames(draws, len(time_F), time_F.device)
        return phase_F

    def gain_F(self, num_frames: int, draws: Draws, device: torch.device | None = None) -> Tensor | None:
        """Laser power of each frame relative to its mean, float64; None where it does not fluctuate."""
        if not self.gain_jitter:
            return None
        noise_F = _of_frames(draws, num_frames, device or torch.device("cpu"))
        return (1.0 + self.gain_jitter * noise_F).clamp_(min=0.0)

    def epoch(self, time_s: float) -> int:
        """Number of decorrelation times that have passed; in each, the medium changes gradually into the next one."""
        return 0 if self.decorrelation_s is None else int(time_s // self.decorrelation_s)

    def turn_F(self, time_F: Tensor, epoch: int) -> Tensor:
        """Angle by which the medium has turned into the next one: A = cos(turn) A_epoch + sin(turn) A_(epoch + 1)."""
        # cos^2 + sin^2 = 1 keeps the entries' variance at 1 all the time, which a linear blend would not
        assert self.decorrelation_s is not None
        return (time_F / self.decorrelation_s - epoch) * (math.pi / 2)

    def aberration_D(self, num_inputs: int, time_s: float) -> Tensor | None:
        """Phase that each input's field picks up, rad: tilt and defocus along the array; None once it is gone."""
        left_rad = (self.warmup_rad or 0.0) * math.exp(-time_s / self.warmup_s)
        if left_rad < 1e-6:
            return None
        # tilt x and defocus x^2 - 1/3 (no mean: a common phase is the reference's drift) are what a plate that warms
        # from one side does first
        place_D = torch.linspace(-1.0, 1.0, num_inputs, dtype=torch.float64)
        profile_D = place_D + place_D.square() - 1 / 3
        return profile_D * (left_rad / profile_D.square().mean().sqrt())


def _of_frames(draws: Draws, num_frames: int, device: torch.device) -> Tensor:
    return draws.normal(num_frames, 1, device=device, dtype=torch.float64)[:, 0]
