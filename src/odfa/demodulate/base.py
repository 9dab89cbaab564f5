"""Stage 4, the contract of demodulators, which turn camera counts into a field."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from odfa.errors import FrameMismatch
from odfa.flow import Arm, Capture, Field, Frames, View
from odfa.settings import Settings


class AbstractDemodulator(ABC):
    """A demodulator: says which frames it needs, then turns their counts into a field."""

    name: str
    """Short name, part of a projection's identity."""
    arm: Arm
    """What the OPU's reference arm must do."""
    linear: bool = True
    """True if the field is linear in the pattern; only then can it carry feedback."""
    quadratures: int = 2
    """Real numbers that a mode gives: 2 for a complex field, 1 for a real one."""
    shared_frames: int = 0
    """Frames that all samples of a run share (see `flow.Frames.shared_AD`)."""

    @abstractmethod
    def expand(self, frames: Frames) -> Frames:
        """Add to the encoder's patterns what the demodulator needs: arm, reference phases, anchor, shared patterns."""

    @abstractmethod
    def exposures(self, num_patterns: int) -> int:
        """Camera frames that `num_patterns` encoder patterns of one sample become after `expand`."""

    def inputs(self, num_inputs: int) -> int:
        """Inputs that the OPU must have for errors of width `num_inputs` (an anchor needs some of its own)."""
        return num_inputs

    def roi(self, num_modes: int, view: View) -> tuple[int, int]:
        """Camera rows and columns to read for `num_modes` modes on a camera with this view; one pixel each here.

        Raises:
            Incompatible: the camera cannot give that many modes by this demodulator.
        """
        return region(num_modes, view)

    @abstractmethod
    def demodulate(self, capture: Capture, frames: Frames) -> Field:
        """Field of each sample and at least the modes asked for, recombined with `frames.gain_NF`; a pure function."""


@dataclass(frozen=True, kw_only=True)
class DemodulatorSettings(Settings, ABC, room="odfa.demodulate", group="odfa.demodulators"):
    """Which demodulator: how the camera's counts become a field."""

    @abstractmethod
    def build(self) -> AbstractDemodulator:
        """The demodulator; it has no random state."""


def region(num_pixels: int, view: View) -> tuple[int, int]:
    """Fewest rows that hold `num_pixels` (more rows make a frame longer), and as many columns as they need."""
    rows = -(-num_pixels // view.shape[1])
    return rows, -(-num_pixels // max(1, rows))


def check_frames(name: str, capture: Capture, frames: Frames) -> None:
    """Refuse a capture that does not answer these frames.

    Raises:
        FrameMismatch: other numbers of samples, of frames per sample or of shared frames.
    """
    shared = 0 if capture.shared_APQ is None else len(capture.shared_APQ)
    expected = (len(frames.gain_NF), frames.frames_per_sample)
    wanted = frames.shared_frames
    if capture.counts_NFPQ.shape[:2] != expected or shared != wanted:
        raise FrameMismatch(
            f"{name}: expected {expected[1]} frames for each of {expected[0]} samples and {wanted} shared "
            f"ones, got counts of shape {tuple(capture.counts_NFPQ.shape)} and {shared}"
        )


def float_dtype(capture: Capture) -> torch.dtype:
    """Precision to calculate in: counts of more than 16 bits would lose their last bits in float32."""
    return torch.float64 if capture.counts_NFPQ.dtype in (torch.int32, torch.int64) else torch.float32
