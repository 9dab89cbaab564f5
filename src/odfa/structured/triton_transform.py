"""The passes of a structured projection on an accelerator, compiled by Triton: the same matrix as on the processor.

A vector of J = 2^k entries is held in natural order. A transform of up to 2^6 points is a product with a small matrix
of signs, which matrix units compute; a longer one is a chain of them. Sums are float32 throughout. Up to 2^14 entries
one program holds the vector and does everything (its transforms: `triton_places`); a longer vector is a matrix of R
rows and 2^b columns in memory and goes through four passes, whose products also turn the index bits, so that after all
of them the bits are back in their order:

    enter   D1 and H down the columns
    cross   H along the rows; for every block D2_b and H along the rows
    middle  H down the columns, S D3_b / N, H down the columns
    leave   H along the rows, D4 and the order of the outputs

Signs are read as bits, 32 to a word. Pointers are to contiguous memory but those of the inputs and results.

Shape letters: `J` entries of a vector · `P` entries of a tile, one program's · `R W` its rows and columns.
"""

import triton
import triton.language as tl

from odfa.structured.triton_places import multiply, signs, transform


@triton.jit
def _transform(x_P, POINTS: tl.constexpr, LOG: tl.constexpr, PRECISION: tl.constexpr):
    """H over the lowest LOG index bits of P = POINTS entries; these bits become the highest."""
    FACTORS: tl.constexpr = LOG // 4
    for i in tl.static_range(FACTORS):
        x_PK = tl.reshape(x_P, [POINTS >> (LOG + i) // FACTORS, 1 << (LOG + i) // FACTORS])
        x_P = tl.reshape(multiply(signs((LOG + i) // FACTORS), tl.trans(x_PK), PRECISION), [POINTS])
    return x_P


@triton.jit
def _down(x_P, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LOG_ROWS: tl.constexpr, PRECISION: tl.constexpr):
    """H down the columns of a tile (R, W)."""
    turned_P = tl.reshape(tl.trans(tl.reshape(x_P, [ROWS, COLUMNS])), [ROWS * COLUMNS])
    return _transform(turned_P, ROWS * COLUMNS, LOG_ROWS, PRECISION)


@triton.jit
def _units(first, ROWS: tl.constexpr, STEP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    """Units of 32 entries that a tile (R, W) touches, (R, W / SPAN); it starts at entry `first`, rows STEP apart."""
    rows = tl.arange(0, ROWS)[:, None] * (STEP // 32)
    return first // 32 + rows + tl.arange(0, COLUMNS // SPAN)[None, :]


@triton.jit
def _flip(x_P, words, first, ROWS: tl.constexpr, STEP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    """x with the signs that `words` have for a tile."""
    drawn = tl.load(words + _units(first, ROWS, STEP, COLUMNS, SPAN))
    bits = drawn[:, :, None] >> (first % 32 + tl.arange(0, SPAN))[None, None, :]
    x = tl.reshape(x_P, [ROWS, COLUMNS // SPAN, SPAN])
    return tl.reshape(tl.where((bits & 1) == 1, -x, x), [ROWS * COLUMNS])


@triton.jit
def _stretch(
    x_P, rows, table, first, ROWS: tl.constexpr, STEP: tl.constexpr, COLUMNS: tl.constexpr, SPAN: tl.constexpr
):
    """x times the singular values of a tile: `rows` has the row of `table`, (V, 32), of each unit."""
    row = tl.load(rows + _units(first, ROWS, STEP, COLUMNS, SPAN))
    at = row[:, :, None] * 32 + (first % 32 + tl.arange(0, SPAN))[None, None, :]
    x = tl.reshape(x_P, [ROWS, COLUMNS // SPAN, SPAN])
    return tl.reshape(x * tl.load(table + at), [ROWS * COLUMNS])


@triton.jit
def _deliver(x_P, out, step, num_outputs, signs4, order, first, POINTS: tl.constexpr):
    """Write P entries of a vector from entry `first` on to where the keyed order has them, with D4.

    Units of 32 outputs are contiguous, once index bits 0-3 and 5-8 have traded places.
    """
    UNITS: tl.constexpr = POINTS // 32
    tile = tl.reshape(x_P, [POINTS // 512, 16, 2, 16])
    x_P = tl.reshape(tl.permute(tile, [0, 3, 2, 1]), [POINTS])
    x_P = _flip(x_P, signs4, first, 1, POINTS, POINTS, 32)
    unit = tl.load(order + first // 32 + tl.arange(0, UNITS))
    output = unit[:, None] * 32 + tl.arange(0, 32)[None, :]
    x = tl.reshape(x_P, [UNITS, 32]).to(out.dtype.element_ty)
    tl.store(out + output * step, x, mask=output < num_outputs)


@triton.jit(do_not_specialize=["first_block", "per_program"])
def whole(
    x,  # (N, D), any floating type or int8
    x_row,  # (), int: entries from row to row
    x_column,  # (), int: entries from column to column
    num_inputs,  # (), int: D
    out,  # (N, M), float32 or a half precision, written
    out_row,  # (), int
    out_column,  # (), int
    num_outputs,  # (), int: M
    first_block,  # (), int: block that out begins with
    per_program,  # (), int: blocks of a program
    signs1,  # (J / 32,) int32
    signs2,  # (B, J / 32) int32
    signs3,  # (B, J / 32) int32
    signs4,  # (J / 32,) int32
    order,  # (J / 32,) int32
    rows,  # (J / 32,) int32
    table,  # (V, 32) float32: S / N
    LOG: tl.constexpr,  # log2 J, 11 to 14
    LOG_WARPS: tl.constexpr,  # log2 of the warps of a program, at least 2
    PRECISION: tl.constexpr,  # of products: tf32 or ieee
):
    """A whole projection of one row for some blocks, grid (N, programs for the blocks)."""
    J: tl.constexpr = 1 << LOG
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * per_program
    place = tl.arange(0, J)
    z_J = tl.load(x + row * x_row + place * x_column, mask=place < num_inputs, other=0).to(tl.float32)
    z_J = transform(_flip(z_J, signs1, 0, 1, J, J, 32), LOG, LOG_WARPS, False, PRECISION)
    for b in range(begin, tl.minimum(begin + per_program, tl.cdiv(num_outputs, J))):
        words = tl.cast(first_block + b, tl.int64) * (J // 32)
        y_J = transform(_flip(z_J, signs2 + words, 0, 1, J, J, 32), LOG, LOG_WARPS, True, PRECISION)
        y_J = _flip(_stretch(y_J, rows, table, 0, 1, J, J, 32), signs3 + words, 0, 1, J, J, 32)
        y_J = transform(y_J, LOG, LOG_WARPS, False, PRECISION)
        to = out + row * out_row + tl.cast(b, tl.int64) * J * out_column
        _deliver(y_J, to, out_column, num_outputs - b * J, signs4, order, 0, J)


@triton.jit
def enter(
    x,  # (n, D), any floating type or int8
    x_row,  # (), int: entries from row to row
    x_column,  # (), int: entries from column to column
    num_inputs,  # (), int: D
    z,  # (n, J) float32, written
    signs1,  # (J / 32,) int32
    LOG_ROWS: tl.constexpr,  # log2 R
    STEP: tl.constexpr,  # columns, 2^b
    W: tl.constexpr,  # columns of a program
    PRECISION: tl.constexpr,
):
    """D1 and H down the columns, grid (n, 2^b / W)."""
    R: tl.constexpr = 1 << LOG_ROWS
    SPAN: tl.constexpr = W if W < 32 else 32
    row, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * W
    place = tl.reshape(first + tl.arange(0, R)[:, None] * STEP + tl.arange(0, W)[None, :], [R * W])
    x_P = tl.load(x + row * x_row + place * x_column, mask=place < num_inputs, other=0).to(tl.float32)
    x_P = _flip(x_P, signs1, first, R, STEP, W, SPAN)
    tl.store(z + row * (R * STEP) + place, _down(x_P, R, W, LOG_ROWS, PRECISION))


@triton.jit(do_not_specialize=["first_block"])
def cross(
    z,  # (n, J) float32
    y,  # (n, blocks, J) float32, written
    first_block,  # (), int: block that y begins with
    num_blocks,  # (), int: blocks of y
    signs2,  # (B, J / 32) int32
    J: tl.constexpr,
    LOG_COLUMNS: tl.constexpr,  # b
    PRECISION: tl.constexpr,
):
    """H along the rows, and for every block D2_b and H along the rows again, grid (n, R)."""
    W: tl.constexpr = 1 << LOG_COLUMNS
    row, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * W
    place = first + tl.arange(0, W)
    z_W = _transform(tl.load(z + row * J + place), W, LOG_COLUMNS, PRECISION)
    for b in range(num_blocks):
        words = signs2 + tl.cast(first_block + b, tl.int64) * (J // 32)
        y_W = _transform(_flip(z_W, words, first, 1, W, W, 32), W, LOG_COLUMNS, PRECISION)
        tl.store(y + (row * num_blocks + b) * J + place, y_W)


@triton.jit(do_not_specialize=["first_block"])
def middle(
    y,  # (n blocks, J) float32, changed in place
    first_block,  # (), int
    num_blocks,  # (), int
    signs3,  # (B, J / 32) int32
    rows,  # (J / 32,) int32
    table,  # (V, 32) float32: S / N
    LOG_ROWS: tl.constexpr,
    STEP: tl.constexpr,
    W: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """H down the columns, singular values and D3_b, H down the columns, grid (n blocks, 2^b / W)."""
    R: tl.constexpr = 1 << LOG_ROWS
    SPAN: tl.constexpr = W if W < 32 else 32
    vector, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * W
    words = signs3 + (first_block + vector % num_blocks) * (R * STEP // 32)
    place = tl.reshape(first + tl.arange(0, R)[:, None] * STEP + tl.arange(0, W)[None, :], [R * W])
    y_P = _down(tl.load(y + vector * (R * STEP) + place), R, W, LOG_ROWS, PRECISION)
    y_P = _flip(_stretch(y_P, rows, table, first, R, STEP, W, SPAN), words, first, R, STEP, W, SPAN)
    tl.store(y + vector * (R * STEP) + place, _down(y_P, R, W, LOG_ROWS, PRECISION))


@triton.jit
def leave(
    y,  # (n blocks, J) float32
    out,  # (n, M), float32 or a half precision, written
    out_row,  # (), int
    out_column,  # (), int
    num_outputs,  # (), int: M
    num_blocks,  # (), int
    signs4,  # (J / 32,) int32
    order,  # (J / 32,) int32
    J: tl.constexpr,
    LOG_COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """H along the rows, D4 and the order of the outputs, grid (n blocks, R)."""
    W: tl.constexpr = 1 << LOG_COLUMNS
    vector, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * W
    row, b = vector // num_blocks, vector % num_blocks
    y_W = _transform(tl.load(y + vector * J + first + tl.arange(0, W)), W, LOG_COLUMNS, PRECISION)
    to = out + row * out_row + b * J * out_column
    _deliver(y_W, to, out_column, num_outputs - b * J, signs4, order, first, W)
