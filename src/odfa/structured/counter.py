"""Exact independent signs from a counter.

Bit i % 64 of word(column, i // 64) says that entry (i, column) is -1; a word is splitmix64's finaliser of its counter
(Steele, Lea & Flood, OOPSLA 2014), so any entry can be made on its own and nothing is stored.
"""

import numpy as np
import torch
from torch import Tensor

GOLDEN, MIX1, MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def words(key: int, columns: range, num_words: int) -> np.ndarray:
    """Random words of these columns, (columns, words) uint64; column and place of a word settle its value."""
    # column in the upper 32 bits, word in the lower: no two words share a counter below 2^32 of each, and a wider
    # matrix begins with the columns of a narrower one
    with np.errstate(over="ignore"):
        high = np.arange(columns.start, columns.stop, dtype=np.uint64) << np.uint64(32)
        counter = high[:, None] + np.arange(num_words, dtype=np.uint64)
        state: np.ndarray = np.uint64(key) + counter * np.uint64(GOLDEN)
        state = (state ^ state >> np.uint64(30)) * np.uint64(MIX1)
        state = (state ^ state >> np.uint64(27)) * np.uint64(MIX2)
        return np.asarray(state ^ state >> np.uint64(31))


def entries(key: int, columns: range, num_inputs: int) -> np.ndarray:
    """Entries +1 and -1 of these columns, one for each random bit, (inputs, columns) int8."""
    drawn = words(key, columns, -(-num_inputs // 64)).astype("<u8")  # the same bit order on big-endian machines
    bits = np.unpackbits(drawn.view(np.uint8), axis=1, bitorder="little", count=num_inputs)
    return np.ascontiguousarray((1 - 2 * bits.astype(np.int8)).T)


def entries_at(key: int, row: Tensor, num_columns: int) -> Tensor:
    """Entries +1 and -1 of these rows (int64, any shape) in all columns, (…, columns) bool on their device: True is -1.

    Sixteen bytes for each entry meanwhile.
    """
    column_M = torch.arange(num_columns, device=row.device) << 32
    # products and sums wrap in int64 as in uint64; shifts of it bring copies of the sign, which are cut off
    state = ((row >> 6)[..., None] + column_M).mul_(_signed(GOLDEN)).add_(_signed(key))
    for shift, factor in ((30, MIX1), (27, MIX2)):
        state.bitwise_xor_(state >> shift & (1 << 64 - shift) - 1).mul_(_signed(factor))
    state.bitwise_xor_(state >> 31 & (1 << 33) - 1)
    return (state >> (row & 63)[..., None] & 1).bool()


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
