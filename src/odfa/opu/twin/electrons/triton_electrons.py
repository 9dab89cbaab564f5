"""`arithmetic`, compiled by Triton for accelerators: the same counts where products and sums are not fused."""

import triton
import triton.language as tl

from odfa.draws.triton_draws import pair, uniform, words_at
from odfa.opu.twin.electrons import arithmetic

_GAUSSIAN_FROM = tl.constexpr(arithmetic.GAUSSIAN_FROM_E)
_QUANTILE_FROM = tl.constexpr(arithmetic.QUANTILE_FROM_E)
_Q00, _Q01 = (tl.constexpr(c) for c in arithmetic.Q0)
_Q10, _Q11 = (tl.constexpr(c) for c in arithmetic.Q1)
_Q20, _Q21, _Q22 = (tl.constexpr(c) for c in arithmetic.Q2)
_E7, _E6, _E5, _E4, _E3, _E2, _E1, _E0 = (tl.constexpr(c) for c in arithmetic.EXP)
_TERMS, _SQUARINGS = tl.constexpr(arithmetic.TERMS), tl.constexpr(arithmetic.SQUARINGS)
_PART = tl.constexpr(-(2.0**-arithmetic.SQUARINGS))


@triton.jit
def count(
    mean,  # (R, C) float32 or float64, contiguous: expected electrons
    counts,  # (R, C) uint8, int16 or int32, contiguous, written
    bright_key,  # (), int64
    faint_key,  # (), int64
    first_row,  # (), int64
    num_rows,  # (), int: R
    num_columns,  # (), int: C
    quads,  # (), int: counters of a row
    SHOT: tl.constexpr,  # Poisson statistics
    READ: tl.constexpr,  # read noise, electrons rms
    READ_SQUARED: tl.constexpr,
    COUNTS_PER_E: tl.constexpr,
    FULL_SCALE: tl.constexpr,
    WHOLE: tl.constexpr,  # a number of mean's type beyond which there are no fractions
    COUNTERS: tl.constexpr,  # of a program
):
    """Counts of these frames, grid (counters // COUNTERS,)."""
    counter = tl.program_id(0).to(tl.int64) * COUNTERS + tl.arange(0, COUNTERS)
    line, quad = counter // quads, counter % quads
    w0, w1, w2, w3 = words_at(bright_key, line + first_row, quad)
    n0, n1 = pair(w0, w1)
    n2, n3 = pair(w2, w3)
    noise = tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), (COUNTERS, 4))
    row, column = line[:, None], quad[:, None] * 4 + tl.arange(0, 4)[None, :]
    inside = (row < num_rows) & (column < num_columns)
    at = row * num_columns + column
    expected = tl.load(mean + at, mask=inside, other=_GAUSSIAN_FROM)
    if SHOT:
        electrons = noise * tl.sqrt_rn(expected.to(tl.float32) + READ_SQUARED) + expected
        is_faint = expected < _GAUSSIAN_FROM
        if tl.max(tl.max(is_faint.to(tl.int32), 1), 0) > 0:
            drawn = _faint(expected.to(tl.float32), noise, faint_key, row + first_row, column, READ)
            electrons = tl.where(is_faint, drawn.to(expected.dtype), electrons)
    else:
        electrons = noise * READ + expected
    largest = tl.full((COUNTERS, 4), FULL_SCALE, electrons.dtype)  # a bare constant would be rounded to float32
    scaled = tl.minimum(tl.maximum(electrons * COUNTS_PER_E, 0.0), largest)
    found = ((scaled + WHOLE) - WHOLE).to(tl.int32)
    tl.store(counts + at, found.to(counts.dtype.element_ty), mask=inside)


@triton.jit
def _faint(mean, noise, key, row, column, READ: tl.constexpr):
    """Electrons of faint pixels, read noise included."""
    w0, w1, w2, _w3 = words_at(key, row, column)
    read, _ = pair(w0, w1)
    drawn = _quantile(tl.maximum(mean, _QUANTILE_FROM), noise)
    is_few = mean < _QUANTILE_FROM
    if tl.max(tl.max(is_few.to(tl.int32), 1), 0) > 0:
        drawn = tl.where(is_few, _inverted(mean, uniform(w2)), drawn)
    return read * READ + drawn


@triton.jit
def _quantile(mean, w):
    """The Poisson quantile: `arithmetic.quantile`."""
    root, square = tl.sqrt_rn(mean), w * w
    inverse = tl.div_rn(root * 0.0 + 1.0, root)
    second = (square * _Q22 + _Q21) * square + _Q20
    first = (square * _Q11 + _Q10) * w
    rest = (second * inverse + first) * inverse + (square * _Q01 + _Q00)
    return tl.maximum(tl.floor((root * w + mean) + rest), 0.0)


@triton.jit
def _inverted(mean, chance):
    """The inverse of the distribution function, `arithmetic.inverted`; means of 10 and more are taken as 0."""
    mean = tl.where(mean < _QUANTILE_FROM, mean, 0.0)
    t = mean * _PART
    term = (((t * _E7 + _E6) * t + _E5) * t + _E4) * t + _E3
    term = ((term * t + _E2) * t + _E1) * t + _E0
    for _ in tl.static_range(_SQUARINGS):
        term = term * term
    total = term
    drawn = (chance >= total).to(tl.float32)
    for k in tl.static_range(1, _TERMS):
        term = term * mean * (1.0 / k)
        before, total = total, total + term
        drawn += ((chance >= total) & (total > before)).to(tl.float32)
    return drawn
