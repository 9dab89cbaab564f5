"""Real values on a binary modulator: signed bit planes, two patterns a bit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odfa.encode.base import AbstractEncoder, EncoderSettings, check_rows
from odfa.errors import ConfigError
from odfa.flow import Frames
from odfa.settings import require

_MOST_BITS = 16


class BitPlanes(AbstractEncoder):
    """|e| / max|e| rounded to b bits; plane k has gain max|e| 2^k / (2^b - 1), minus that for negative entries.

    Frames: 2 b per row. Error of every entry: at most `relative_error` = 1 / (2 (2^b - 1)) of the row's largest
    magnitude (b = 6: 0.8 %), and rounding to the nearest is unbiased between levels.

    >>> BitPlanes(bits=2).encode(torch.tensor([[3.0, -2.1, 0.4]])).values()
    tensor([[ 3., -2.,  0.]])
    """

    def __init__(self, bits: int = 6) -> None:
        """Choose the number of bits.

        Raises:
            ConfigError: not between 1 and 16.
        """
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= _MOST_BITS:
            raise ConfigError(f"bits must be an integer from 1 to {_MOST_BITS}, got {bits!r}")
        self._bits = bits
        self.name = f"bit_planes({bits})"

    def __repr__(self) -> str:
        return self.name

    @property
    def patterns_per_sample(self) -> int:
        """Two patterns for each bit, plus and minus."""
        return 2 * self._bits

    @property
    def relative_error(self) -> float:
        """Largest error of an entry over the row's largest magnitude: half a step."""
        return 0.5 / float(2**self._bits - 1)

    def encode(self, e_ND: Tensor) -> Frames:
        """Bit planes of each row, lowest bit first, plus before minus; rows of zeros give dark patterns.

        Raises:
            ConfigError: `e_ND` is not a matrix of floating-point numbers with at least one column.
        """
        # two patterns a bit, instead of one with an offset: static light and the mirrors' leak cancel between them
        e_ND = check_rows(e_ND)
        top = 2**self._bits - 1
        peak_N1 = e_ND.abs().amax(1, keepdim=True)
        tiny = torch.finfo(e_ND.dtype).tiny
        level_ND = (e_ND.abs() / peak_N1.clamp_min(tiny) * top).round_().to(torch.int32)
        bits_NFD = torch.empty((len(e_ND), 2 * self._bits, e_ND.shape[1]), dtype=torch.bool, device=e_ND.device)
        for k in range(self._bits):
            lit_ND = (level_ND >> k & 1).bool()
            torch.logical_and(lit_ND, e_ND > 0, out=bits_NFD[:, 2 * k])
            torch.logical_and(lit_ND, e_ND < 0, out=bits_NFD[:, 2 * k + 1])
        weight_F = e_ND.new_tensor([sign * 2.0**k / top for k in range(self._bits) for sign in (1, -1)])
        return Frames(bits_NFD=bits_NFD, gain_NF=peak_N1 * weight_F, encoder=self.name)


@dataclass(frozen=True, kw_only=True)
class BitPlanesSettings(EncoderSettings, kind="bits"):
    """Real values in signed bit planes, two patterns a bit, instead of a ternary code; deterministic."""

    bits: int = 6
    """Bits of a magnitude; the largest error of an entry is 1 / (2 (2^bits - 1)) of the row's largest."""

    def __post_init__(self) -> None:
        require(0 < self.bits <= _MOST_BITS, "bits", f"1 to {_MOST_BITS}", self.bits)

    @property
    def code(self) -> str:
        """Number of bits and the word "bit", such as "6-bit"."""
        return f"{self.bits}-bit"

    def build(self, seed: int) -> BitPlanes:
        """`BitPlanes(bits)`; nothing is drawn with `seed`."""
        return BitPlanes(self.bits)
