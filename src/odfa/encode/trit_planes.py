"""Real values on a binary modulator: balanced ternary digits, two patterns a digit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odfa import arguments
from odfa.encode.base import EncoderSettings, check_rows, row_blocks
from odfa.encode.drawing import DrawingEncoder
from odfa.flow import Frames
from odfa.settings import require

_MOST_TRITS = 10


class TritPlanes(DrawingEncoder):
    """e is rounded at random to k Δ, Δ = 2 max|e| / (3^n - 1), and k = Σ_j 3^j t_j has digits t_j in {-1, 0, +1}.

    Frames: 2 n per row; digit j has gain ±3^j Δ. Unbiased, E[values] = e; the variance of an entry between two levels
    is f (1 - f) Δ², f its distance to one of them in steps, so at most Δ² / 4. n = 1 is the law of
    `Ternary("stochastic")`. Of n pairs of patterns bit planes make 2^(n+1) - 1 levels, these 3^n.

    >>> TritPlanes(2).encode(torch.tensor([[4.0, -2.0, 1.0]])).values()
    tensor([[ 4., -2.,  1.]])
    """

    stream = int.from_bytes(b"trits")

    def __init__(self, trits: int = 3, *, seed: int = 0) -> None:
        """Choose the number of digits; `seed` is the key of the draws.

        Raises:
            ConfigError: an argument is no integer, or there are fewer than 1 or more than 10 digits.
        """
        arguments.whole("trits", trits, 1, _MOST_TRITS)
        super().__init__(seed)
        self._trits = trits
        self.name = f"trit_planes({trits})"

    def __repr__(self) -> str:
        return self.name

    @property
    def patterns_per_sample(self) -> int:
        """Two patterns for each digit, plus and minus."""
        return 2 * self._trits

    def encode(self, e_ND: Tensor) -> Frames:
        """Digits of each row, lowest first, plus before minus; rows of zeros give dark patterns.

        Raises:
            ConfigError: `e_ND` is not a matrix of floating-point numbers with at least one column.
        """
        e_ND = check_rows(e_ND)
        draws, width = self.next_draws(), e_ND.shape[1]
        top = (3**self._trits - 1) // 2
        step_N1 = e_ND.abs().amax(1, keepdim=True) / top
        bits_NFD = torch.empty((len(e_ND), 2 * self._trits, e_ND.shape[1]), dtype=torch.bool, device=e_ND.device)
        for rows in row_blocks(e_ND):
            e_nD, step_n1 = e_ND[rows], step_N1[rows].clamp_min(torch.finfo(e_ND.dtype).tiny)
            # from 0 to 3^n - 1; the digits of k + top, less one each, are the balanced digits of k
            uniform_nD = draws.uniform(len(e_nD), width, first_row=rows.start, device=e_ND.device, dtype=e_ND.dtype)
            level_nD = (e_nD / step_n1).add_(uniform_nD).floor_().clamp_(-top, top).add_(top).to(torch.int32)
            for j in range(self._trits):
                digit_nD = level_nD % 3
                bits_NFD[rows, 2 * j], bits_NFD[rows, 2 * j + 1] = digit_nD == 2, digit_nD == 0
                level_nD = level_nD // 3
        worth_F = e_ND.new_tensor([sign * 3.0**j for j in range(self._trits) for sign in (1, -1)])
        return Frames(bits_NFD=bits_NFD, gain_NF=step_N1 * worth_F, encoder=self.name)


@dataclass(frozen=True, kw_only=True)
class TritPlanesSettings(EncoderSettings, kind="trits"):
    """Real values in balanced ternary digits, two patterns a digit, rounded at random; unbiased."""

    trits: int = 3
    """Digits of an entry; the step between two levels is 2 / (3^trits - 1) of the row's largest magnitude."""

    def __post_init__(self) -> None:
        require(0 < self.trits <= _MOST_TRITS, "trits", f"1 to {_MOST_TRITS}", self.trits)

    @property
    def code(self) -> str:
        """The word "ternary", with the number of digits where there are several."""
        return "ternary" if self.trits == 1 else f"{self.trits}-digit ternary"

    def build(self, seed: int) -> TritPlanes:
        """`TritPlanes(trits)` with the key `seed`."""
        return TritPlanes(self.trits, seed=seed)
