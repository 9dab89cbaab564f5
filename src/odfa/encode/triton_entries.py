"""Entries of rows drawn by inverse cumulative distribution, compiled by Triton: `quantise.drawn_entries`.

Each row is read twice: for the sums of its positive and of its negative entries, then for where the cumulative sums
pass what is drawn. These are never in memory.
"""

import triton
import triton.language as tl


@triton.jit
def _part(e, e_column, begin, num_inputs, BLOCK: tl.constexpr):
    """The next entries of a row, zeros behind its end."""
    place = begin + tl.arange(0, BLOCK)
    return tl.load(e + place.to(tl.int64) * e_column, mask=place < num_inputs, other=0.0)


@triton.jit
def _threshold(uniform, drawn, repeats, total):
    """Cumulative sum that the entry of a draw is the first to exceed."""
    return tl.div_rn(drawn.to(tl.float32) + uniform, repeats.to(tl.float32)) * total


@triton.jit
def _pass(x, begin, before, drawn, last, total, uniform, repeats, index, BLOCK: tl.constexpr):
    """Write the entries of x >= 0 that the next draws fall on; (cumulative sum, draws done, last entry above zero)."""
    place = tl.arange(0, BLOCK)
    cumulative, after = before + tl.cumsum(x, 0), before + tl.sum(x)
    final = tl.max(tl.where(x > 0, place, -1))
    while (drawn < repeats) & (_threshold(uniform, drawn, repeats, total) < after):
        passed = (cumulative > _threshold(uniform, drawn, repeats, total)) & (x > 0)
        # sums in another order may be smaller than their sum: then it is the last entry
        found = tl.minimum(tl.min(tl.where(passed, place, BLOCK)), final)
        tl.store(index + 2 * drawn, (begin + found).to(tl.int64))
        drawn += 1
    return after, drawn, tl.where(final >= 0, begin + final, last)


@triton.jit
def _end(sign, drawn, last, total, repeats, index, gain):
    """Draws that rounding has left beyond the last entry fall on it; the gains of all."""
    while drawn < repeats:
        tl.store(index + 2 * drawn, tl.maximum(last, 0).to(tl.int64))
        drawn += 1
    for draw in range(repeats):
        tl.store(gain + 2 * draw, tl.div_rn(sign * total, repeats.to(tl.float32)))


@triton.jit(do_not_specialize=["repeats"])
def draw_entries(
    e,  # (N, D) float32
    e_row,  # (), int: entries from row to row
    e_column,  # (), int: entries from column to column
    num_inputs,  # (), int: D
    uniform,  # (N, 2) float32, contiguous
    repeats,  # (), int: R
    index,  # (N, 2 R) int64, contiguous, written
    gain,  # (N, 2 R) float32, contiguous, written
    BLOCK: tl.constexpr,  # entries at a time
):
    """Draws of each row, plus and minus in turn, grid (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    e += row * e_row
    index += row * repeats * 2
    gain += row * repeats * 2
    plus_total, minus_total = 0.0, 0.0
    for begin in range(0, num_inputs, BLOCK):
        x = _part(e, e_column, begin, num_inputs, BLOCK)
        plus_total += tl.sum(tl.maximum(x, 0.0))
        minus_total += tl.sum(tl.maximum(-x, 0.0))
    plus_uniform, minus_uniform = tl.load(uniform + row * 2), tl.load(uniform + row * 2 + 1)
    plus_sum, minus_sum = 0.0, 0.0
    plus_drawn, minus_drawn = row.to(tl.int32) * 0, row.to(tl.int32) * 0
    plus_last, minus_last = plus_drawn - 1, minus_drawn - 1
    for begin in range(0, num_inputs, BLOCK):
        x = _part(e, e_column, begin, num_inputs, BLOCK)
        plus_sum, plus_drawn, plus_last = _pass(
            tl.maximum(x, 0.0), begin, plus_sum, plus_drawn, plus_last, plus_total, plus_uniform, repeats, index, BLOCK
        )
        minus_sum, minus_drawn, minus_last = _pass(
            tl.maximum(-x, 0.0), begin, minus_sum, minus_drawn, minus_last, minus_total, minus_uniform, repeats,
            index + 1, BLOCK,
        )  # fmt: skip
    _end(1.0, plus_drawn, plus_last, plus_total, repeats, index, gain)
    _end(-1.0, minus_drawn, minus_last, minus_total, repeats, index + 1, gain + 1)
