"""`arithmetic`, compiled by Triton for accelerators: the same numbers where products and sums are not fused."""

import triton
import triton.language as tl

from odfa.draws import arithmetic

_SQRT_HALF = tl.constexpr(arithmetic.SQRT_HALF_BITS)
_LN2_HIGH, _LN2_LOW = tl.constexpr(arithmetic.LN2_HIGH), tl.constexpr(arithmetic.LN2_LOW)
_TURN = tl.constexpr(arithmetic.TURN)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (tl.constexpr(c) for c in arithmetic.LOG)
_S0, _S1, _S2 = (tl.constexpr(c) for c in arithmetic.SIN)
_C0, _C1, _C2 = (tl.constexpr(c) for c in arithmetic.COS)


@triton.jit
def words_at(key, row, quad):
    """The four words of counters (column // 4, row), int64 both, uint32 each: `arithmetic.words`."""
    place, line = quad + row * 0, row + quad * 0
    low = tl.cast(place, tl.uint32)
    high = tl.cast(place >> 32, tl.uint32)
    return tl.philox(key, low, high, tl.cast(line, tl.uint32), tl.cast(line >> 32, tl.uint32))


@triton.jit
def log(u):
    """Natural logarithm: `arithmetic.log`."""
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - _SQRT_HALF) >> 23
    x = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    power, z = exponent.to(tl.float32), x * x
    y = (((_L0 * x + _L1) * x + _L2) * x + _L3) * x + _L4
    y = (((y * x + _L5) * x + _L6) * x + _L7) * x + _L8
    y = y * x * z + power * _LN2_LOW - z * 0.5
    return x + y + power * _LN2_HIGH


@triton.jit
def pair(radius_word, angle_word):
    """Two normal numbers of two words."""
    u = radius_word.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10  # 2^-32, 2^-33
    radius = tl.sqrt_rn(log(u) * -2.0)
    quadrant = (angle_word >> 30).to(tl.int32)
    t = ((angle_word & 0x3FFFFFFF).to(tl.int32) - 536870912).to(tl.float32) * _TURN
    z = t * t
    sine = ((_S0 * z + _S1) * z + _S2) * z * t + t
    cosine = ((_C0 * z + _C1) * z + _C2) * z * z - z * 0.5 + 1.0
    is_odd = (quadrant & 1) != 0
    first, second = tl.where(is_odd, sine, cosine), tl.where(is_odd, cosine, sine)
    first_sign = 1.0 - 2.0 * ((quadrant ^ (quadrant >> 1)) & 1).to(tl.float32)
    second_sign = 1.0 - 2.0 * (quadrant >> 1).to(tl.float32)
    return radius * (first * first_sign), radius * (second * second_sign)


@triton.jit
def uniform(word):
    """A multiple of 2^-24 from 0 to below 1."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def fill(
    out,  # (R, C) float32, contiguous, written
    key,  # (), int64
    first_row,  # (), int64
    num_rows,  # (), int: R
    num_columns,  # (), int: C
    quads,  # (), int: counters of a row
    NORMAL: tl.constexpr,  # normal numbers, otherwise uniform ones
    COUNTERS: tl.constexpr,  # of a program
):
    """Numbers of these rows, grid (counters // COUNTERS,)."""
    counter = tl.program_id(0).to(tl.int64) * COUNTERS + tl.arange(0, COUNTERS)
    row, quad = counter // quads, counter % quads
    a, b, c, d = words_at(key, row + first_row, quad)
    if NORMAL:
        n0, n1 = pair(a, b)
        n2, n3 = pair(c, d)
    else:
        n0, n1, n2, n3 = uniform(a), uniform(b), uniform(c), uniform(d)
    at, column = out + row * num_columns + quad * 4, quad * 4
    inside = row < num_rows
    tl.store(at, n0, mask=inside)
    tl.store(at + 1, n1, mask=inside & (column + 1 < num_columns))
    tl.store(at + 2, n2, mask=inside & (column + 2 < num_columns))
    tl.store(at + 3, n3, mask=inside & (column + 3 < num_columns))
