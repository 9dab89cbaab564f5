"""Fixed point: how far int16 values are shifted between the steps of a projection, so that nothing overflows.

Every step over g index bits multiplies the rms by 2^(g / 2). Signs are random, so intermediate values are sums of
independent terms of random sign and pass L times their rms with probability below 2 exp(-L^2 / 2): the shifts keep the
rms below 2^11.5, a margin of 11. Codes of few non-zeros can pile up by chance, so that parts of a vector are larger
than the rest: they get a margin of 16. Overflow would wrap around unnoticed, hence these margins.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

SLOTS = 17
_DENSE_RMS, _SPARSE_RMS = 11.5, 11.0
FEW = 64
"""Codes with at most so many non-zeros count as sparse."""
_TILE_BITS = 9


@dataclass(frozen=True)
class Shifts:
    """Right shifts by slot (see `kernels`), the shift that comes with the singular values, log2 of the first rms."""

    slots: np.ndarray
    values: int
    log_rms: float

    @property
    def total(self) -> int:
        """log2 of what all shifts divide by."""
        return int(self.slots.sum()) + self.values

    def factor(self, num_lit: int) -> int:
        """What a code with this many non-zeros is multiplied by."""
        return max(1, int(2**self.log_rms / math.sqrt(max(1, num_lit))))


def groups(log_points: int) -> tuple[int, int, int]:
    """Index bits above a row, split into an outer, an extra and an inner group of at most four."""
    # four bits are 16 vectors, as many as a kernel holds in registers; one group needs no panel, so it is tried first
    high = max(0, log_points - 12)
    if high <= 4:
        return 0, 0, high
    if high <= 8:
        return high // 2, 0, high - high // 2
    return 4, high - 8, 4


@lru_cache(maxsize=64)
def plan(log_points: int, *, sparse: bool) -> Shifts:
    """Shifts for vectors of 2^k entries."""
    # Each shift comes after its step and makes room for the next one; so the rms peaks before a shift, at `limit`, and
    # the values use as many of the 16 bits as the margin allows. Shifting more would lose precision to rounding.
    outer, extra, inner = groups(log_points)
    low, limit = min(log_points, 12) - _TILE_BITS, _SPARSE_RMS if sparse else _DENSE_RMS
    # (slot, bits); None: the singular values, whose shift is part of their table
    if inner:
        around: list[tuple[int | None, int]] = [(9, low), (10, outer), (11, extra), (None, inner)]
        around += [(13, inner), (14, extra), (15, outer), (16, low)]
    else:
        around = [(None, low), (9, low)]
    steps: list[tuple[int | None, int]] = [(7, 0), (8, _TILE_BITS)]
    steps += [step for step in around if step[1]] + [(-1, _TILE_BITS)]
    slots, values, log_rms = np.zeros(SLOTS, dtype=np.int64), 0, limit
    for (slot, bits), (_, following) in pairwise(steps):
        log_rms += bits / 2
        # singular values reach 2, and as int16 times 2^(16 - shift) fit from a shift of 2 on; 1e-9: rounding of sums
        # of halves must not make a whole number one larger
        shift = max(0 if slot is not None else 2, math.ceil(log_rms + following / 2 - limit - 1e-9))
        log_rms -= shift
        if slot is None:
            values = shift
        else:
            slots[slot] = shift
    return Shifts(slots, values, limit)
