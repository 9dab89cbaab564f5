"""Rows times normal numbers that are made where they are multiplied, compiled by Triton.

Entry (d, m) of the matrix is the number of row d and column m: a counter makes four neighbouring columns, and four sums
are kept for them, which no shuffle of the tile has to bring together before the end.
"""

import triton
import triton.language as tl

from odfa.draws.triton_draws import pair, words_at


@triton.jit
def _high(x):
    """The upper 11 bits of float32 numbers, which tf32 keeps."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _add_product(sums, x, normals, EXACT: tl.constexpr, PRECISION: tl.constexpr):
    """sums + x normals.

    tf32 keeps 11 bits: float32 numbers are multiplied as two numbers of 11 bits each, without the product of the two
    lower parts, below 2^-22 of the whole; EXACT: x has no lower part.
    """
    if PRECISION == "tf32" and x.dtype == tl.float32:
        large = _high(normals)
        sums = tl.dot(x, normals - large, acc=sums, input_precision="tf32")
        if EXACT:
            return tl.dot(x, large, acc=sums, input_precision="tf32")
        upper = _high(x)
        sums = tl.dot(x - upper, large, acc=sums, input_precision="tf32")
        return tl.dot(upper, large, acc=sums, input_precision="tf32")
    return tl.dot(x, normals, acc=sums, input_precision=PRECISION, out_dtype=tl.float32)


@triton.jit
def _normals(key, row, quad):
    """Four columns of each counter."""
    a, b, c, d = words_at(key, row, quad)
    n0, n1 = pair(a, b)
    n2, n3 = pair(c, d)
    return n0, n1, n2, n3


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
    ROWS: tl.constexpr,  # rows of a program
    QUADS: tl.constexpr,  # columns of a program, over four
    INPUTS: tl.constexpr,  # inputs of a step
    PRECISION: tl.constexpr,  # of products of float32: tf32 or ieee
    WIDE: tl.constexpr,  # multiply in float32, whatever the rows are
):
    """out = x B, grid (columns, rows); sums in float32. B is rounded to the half precision that the rows have."""
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    quad = tl.program_id(0).to(tl.int64) * QUADS + tl.arange(0, QUADS)
    lane = tl.arange(0, INPUTS)
    given: tl.constexpr = x.dtype.element_ty
    is_code: tl.constexpr = given == tl.int8
    narrow: tl.constexpr = tl.float32 if is_code else given
    kind: tl.constexpr = tl.float32 if WIDE else narrow
    s0 = tl.zeros([ROWS, QUADS], dtype=tl.float32)
    s1, s2, s3 = s0, s0, s0
    for step in range(tl.cdiv(num_inputs, INPUTS)):
        begin = tl.cast(step, tl.int64) * INPUTS
        inside = (row < num_rows)[:, None] & (lane < num_inputs - begin)[None, :]
        at = x + begin * x_column + row[:, None] * x_row + lane[None, :].to(tl.int64) * x_column
        part = tl.load(at, mask=inside, other=0).to(kind)
        n0, n1, n2, n3 = _normals(key, (begin + lane)[:, None], quad[None, :])
        s0 = _add_product(s0, part, n0.to(narrow).to(kind), is_code, PRECISION)
        s1 = _add_product(s1, part, n1.to(narrow).to(kind), is_code, PRECISION)
        s2 = _add_product(s2, part, n2.to(narrow).to(kind), is_code, PRECISION)
        s3 = _add_product(s3, part, n3.to(narrow).to(kind), is_code, PRECISION)
    to = out + row[:, None] * out_row + quad[None, :] * 4 * out_column
    left = tl.where((row < num_rows)[:, None], num_outputs - 4 * quad[None, :], 0)
    tl.store(to, s0.to(out.dtype.element_ty), mask=left > 0)
    tl.store(to + out_column, s1.to(out.dtype.element_ty), mask=left > 1)
    tl.store(to + 2 * out_column, s2.to(out.dtype.element_ty), mask=left > 2)
    tl.store(to + 3 * out_column, s3.to(out.dtype.element_ty), mask=left > 3)


@triton.jit(do_not_specialize=["key"])
def gather(
    index,  # (N, F) int64, contiguous
    gain,  # (N, F) float32, contiguous
    num_entries,  # (), int: F
    out,  # (N, M) float32, contiguous, written
    num_outputs,  # (), int: M
    key,  # (), int64: key of the matrix
    blocks,  # (), int: programs of a row
    QUADS: tl.constexpr,  # columns of a program, over four
):
    """out = sum_F gain B[index], grid (rows x blocks,): a product and a sum for each entry, in their order."""
    program = tl.program_id(0).to(tl.int64)
    row = program // blocks
    quad = program % blocks * QUADS + tl.arange(0, QUADS)
    s0 = tl.zeros([QUADS], dtype=tl.float32)
    s1, s2, s3 = s0, s0, s0
    for entry in range(num_entries):
        at = row * num_entries + entry
        weight = tl.load(gain + at)
        n0, n1, n2, n3 = _normals(key, tl.load(index + at), quad)
        s0, s1, s2, s3 = s0 + weight * n0, s1 + weight * n1, s2 + weight * n2, s3 + weight * n3
    to, left = out + row * num_outputs + 4 * quad, num_outputs - 4 * quad
    tl.store(to, s0, mask=left > 0)
    tl.store(to + 1, s1, mask=left > 1)
    tl.store(to + 2, s2, mask=left > 2)
    tl.store(to + 3, s3, mask=left > 3)
