"""What counts are made by."""

from dataclasses import dataclass

import torch

from odfa.draws import Draws


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a camera reads its pixels, and where the noise comes from."""

    bright: Draws
    """Shot and read noise, one number a pixel."""
    faint: Draws
    """What pixels of few electrons draw besides, a counter each."""
    shot: bool
    """Whether electrons follow the Poisson law."""
    read_e: float
    """Noise of reading a pixel, electrons rms."""
    counts_per_e: float
    """Counts per electron."""
    full_scale: int
    """Largest count."""
    dtype: torch.dtype
    """Type of a count."""
