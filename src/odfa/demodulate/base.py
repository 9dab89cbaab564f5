"""Stage 4, the contract: camera counts in, complex field out."""

from abc import ABC, abstractmethod

from odfa.flow import Capture, Field, Frames


class AbstractDemodulator(ABC):
    """A linear read-out: says which frames it needs, then turns their counts into a field."""

    name: str
    """Short name, part of a projection's identity."""
    needs_phase_steps: bool
    """True if the device must step its reference phase."""

    @abstractmethod
    def expand(self, frames: Frames) -> Frames:
        """Add what the read-out needs to the encoder's patterns: reference phases, anchor patterns."""

    @abstractmethod
    def exposures(self, num_patterns: int) -> int:
        """Camera frames that `num_patterns` encoder patterns of one sample become after `expand`."""

    @abstractmethod
    def demodulate(self, capture: Capture, frames: Frames) -> Field:
        """Field of each sample and mode, recombined with `frames.gain_NF`; a pure function of its arguments."""
