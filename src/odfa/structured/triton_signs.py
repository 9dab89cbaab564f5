"""Rows times the signs of `counter`, which are made where they are multiplied, compiled by Triton."""

import triton
import triton.language as tl

from odfa.structured import counter

_GOLDEN = tl.constexpr(counter.GOLDEN)
_MIX1, _MIX2 = tl.constexpr(counter.MIX1), tl.constexpr(counter.MIX2)


@triton.jit
def _words(key, columns, word):
    """Random words of these columns, uint64: `counter.words`."""
    state = tl.cast(key, tl.uint64) + ((columns << 32) + tl.cast(word, tl.uint64)) * _GOLDEN
    state = (state ^ (state >> 30)) * _MIX1
    state = (state ^ (state >> 27)) * _MIX2
    return state ^ (state >> 31)


@triton.jit
def _add_product(sums, x, signs, PRECISION: tl.constexpr):
    """sums + x signs. tf32 keeps 11 bits of a number: a float32 as two numbers of 11 bits each; signs are exact."""
    if PRECISION == "tf32" and x.dtype == tl.float32:
        high = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        sums = tl.dot(x - high, signs, acc=sums, input_precision="tf32")
        return tl.dot(high, signs, acc=sums, input_precision="tf32")
    return tl.dot(x, signs, acc=sums, input_precision=PRECISION, out_dtype=sums.dtype)


@triton.jit(do_not_specialize=["key"])
def multiply(
    x,  # (N, D), float32, a half precision or int8
    x_row,  # (), int: entries from row to row
    x_column,  # (), int: entries from column to column
    num_rows,  # (), int: N
    num_inputs,  # (), int: D
    out,  # (N, M), float32 or a half precision, written
    out_row,  # (), int
    out_column,  # (), int
    num_outputs,  # (), int: M
    key,  # (), int64: key of the matrix
    ROWS: tl.constexpr,  # rows and columns of a program
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,  # of products of float32: tf32 or ieee
    WIDE: tl.constexpr,  # multiply in float32, whatever the rows are
):
    """out = x B, grid (columns, rows); sums in float32, of int8 rows in int32."""
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    lane = tl.arange(0, 32)
    kind: tl.constexpr = tl.float32 if WIDE else x.dtype.element_ty
    sums = tl.zeros([ROWS, COLUMNS], dtype=tl.int32 if kind == tl.int8 else tl.float32)
    for word in range(tl.cdiv(num_inputs, 64)):
        words = _words(key, column.to(tl.uint64), word)
        for half in tl.static_range(2):
            begin = tl.cast(word, tl.int64) * 64 + half * 32
            inside = (row < num_rows)[:, None] & (lane < num_inputs - begin)[None, :]
            at = x + begin * x_column + row[:, None] * x_row + lane[None, :] * x_column
            part = tl.load(at, mask=inside, other=0).to(kind)
            bits = (words >> (32 * half)).to(tl.uint32)[None, :] >> lane.to(tl.uint32)[:, None]
            signs = (1 - 2 * (bits & 1).to(tl.int32)).to(kind)
            sums = _add_product(sums, part, signs, PRECISION)
    inside = (row < num_rows)[:, None] & (column < num_outputs)[None, :]
    tl.store(out + row[:, None] * out_row + column[None, :] * out_column, sums.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["key"])
def gather(
    index,  # (N, F) int64, contiguous
    gain,  # (N, F) float32, contiguous
    num_entries,  # (), int: F
    out,  # (N, M) float32, contiguous, written
    num_outputs,  # (), int: M
    key,  # (), int64: key of the matrix
    blocks,  # (), int: programs of a row
    COLUMNS: tl.constexpr,  # of a program
):
    """out = sum_F gain B[index], grid (rows x blocks,), in the order of the entries."""
    program = tl.program_id(0).to(tl.int64)
    row = program // blocks
    column = program % blocks * COLUMNS + tl.arange(0, COLUMNS)
    sums = tl.zeros([COLUMNS], dtype=tl.float32)
    for entry in range(num_entries):
        at = row * num_entries + entry
        weight, place = tl.load(gain + at), tl.load(index + at)
        bits = _words(key, column.to(tl.uint64), place >> 6) >> (place & 63).to(tl.uint64)
        sums += tl.where((bits & 1) != 0, -weight, weight)
    tl.store(out + row * num_outputs + column, sums, mask=column < num_outputs)
