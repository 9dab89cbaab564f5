"""The camera's own answer: |A x|^2, for random features."""

from dataclasses import replace

import torch

from odfa.demodulate.base import AbstractDemodulator
from odfa.errors import FrameMismatch
from odfa.flow import Arm, Capture, Field, Frames


class Intensity(AbstractDemodulator):
    """field = sum_F gain_F |A x_F|^2: one frame per pattern, one pixel per output, no reference. Not linear.

    The mean |x|^2 common to all outputs stays in. For A ~ CN(0, 1) and real x, y the outputs are features of the kernel
    E[|A x|^2 |A y|^2] = |x|^2 |y|^2 + (x . y)^2 (Saade et al., ICASSP 2016, arXiv 1510.06664).
    """

    arm: Arm = "blocked"
    linear = False
    quadratures = 1
    name = "intensity()"

    def __repr__(self) -> str:
        return self.name

    def expand(self, frames: Frames) -> Frames:
        """Shut the reference arm."""
        return replace(frames, arm=self.arm, phase_S=())

    def exposures(self, num_patterns: int) -> int:
        """One frame per pattern."""
        return num_patterns

    def demodulate(self, capture: Capture, frames: Frames) -> Field:
        """Intensity of each sample and mode, in the units where one lit input gives a mean of 1.

        Raises:
            FrameMismatch: the capture does not hold one frame per pattern of `frames`.
        """
        counts_NFM = capture.counts_NFPQ.flatten(2)
        if counts_NFM.shape[:2] != frames.gain_NF.shape:
            raise FrameMismatch(
                f"{self.name}: expected {frames.gain_NF.shape[1]} frames for each of {len(frames.gain_NF)} samples, "
                f"got counts of shape {tuple(capture.counts_NFPQ.shape)}"
            )
        wide = counts_NFM.dtype in (torch.int32, torch.int64)  # more than 16 bits do not fit float32
        gain_NF = frames.gain_NF.to(torch.float64 if wide else torch.float32)
        value_NM = (gain_NF[:, None] @ counts_NFM.to(gain_NF.dtype))[:, 0] / capture.acquisition.counts_per_intensity
        return Field(field_NM=value_NM.float())
