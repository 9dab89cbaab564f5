"""Intensities |A x|^2 as the camera counts them, for random features."""

from dataclasses import replace

from odfa.demodulate.base import AbstractDemodulator, check_frames, float_dtype
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
        """The same patterns with the reference arm shut."""
        return replace(frames, arm=self.arm, phase_S=())

    def exposures(self, num_patterns: int) -> int:
        """One frame for each pattern."""
        return num_patterns

    def demodulate(self, capture: Capture, frames: Frames) -> Field:
        """Intensity of each sample and mode, in the units where one lit input gives a mean of 1.

        Raises:
            FrameMismatch: the capture does not hold one frame per pattern of `frames`.
        """
        check_frames(self.name, capture, frames)
        counts_NFM, gain_NF = capture.counts_NFPQ.flatten(2), frames.gain_NF.to(float_dtype(capture))
        value_NM = (gain_NF[:, None] @ counts_NFM.to(gain_NF.dtype))[:, 0] / capture.acquisition.counts_per_intensity
        return Field(field_NM=value_NM.float())
