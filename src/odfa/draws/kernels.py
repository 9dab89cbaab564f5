"""`arithmetic`, compiled by numba for processors: the same numbers, several times as fast."""

import numpy as np
from numba import float32, int32, int64, njit, uint32, uint64

from odfa.draws.arithmetic import (
    COS,
    LN2_HIGH,
    LN2_LOW,
    LOG,
    MULTIPLIERS,
    ROUNDS,
    SIN,
    SQRT_HALF_BITS,
    TURN,
    WEYL,
)
from odfa.structured.compiled import kernel

BLOCK = 64
"""Counters at a time: what is made of them stays in L1, and each loop over them becomes vector code."""
_MULTIPLIER_0, _MULTIPLIER_1 = uint64(MULTIPLIERS[0]), uint64(MULTIPLIERS[1])
_WEYL_0, _WEYL_1 = uint32(WEYL[0]), uint32(WEYL[1])
_SQRT_HALF, _32 = int32(SQRT_HALF_BITS), uint64(32)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (np.float32(c) for c in LOG)
_S0, _S1, _S2 = (np.float32(c) for c in SIN)
_C0, _C1, _C2 = (np.float32(c) for c in COS)
_LN2_HIGH, _LN2_LOW, _TURN = np.float32(LN2_HIGH), np.float32(LN2_LOW), np.float32(TURN)
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_STEP, _HALF_STEP, _UNIFORM_STEP = np.float32(2.0**-32), np.float32(2.0**-33), np.float32(2.0**-24)


@njit(inline="always")
def _philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds on a counter of four uint32 by a key of two."""
    for _ in range(ROUNDS):
        first, second = uint64(c0) * _MULTIPLIER_0, uint64(c2) * _MULTIPLIER_1
        c0, c1 = uint32(uint32(second >> _32) ^ c1 ^ k0), uint32(second)
        c2, c3 = uint32(uint32(first >> _32) ^ c3 ^ k1), uint32(first)
        k0, k1 = uint32(k0 + _WEYL_0), uint32(k1 + _WEYL_1)
    return c0, c1, c2, c3


@njit(inline="always")
def uniform(word):
    """A multiple of 2^-24 from 0 to below 1."""
    return float32(word >> uint32(8)) * _UNIFORM_STEP


@kernel
def draw_words(
    key,  # (), int64
    row,  # (), int64, row of the first counter
    quad,  # (), int64, and its columns // 4
    quads,  # (), int64, counters of a row
    words,  # (4, BLOCK) uint32, written
):
    """The words of the next counters, row after row."""
    if quad + BLOCK <= quads:
        k0, k1 = uint32(key), uint32(uint64(key) >> _32)
        for i in range(BLOCK):
            at = uint64(quad + i)
            a, b, c, d = _philox(uint32(at), uint32(at >> _32), uint32(row), uint32(uint64(row) >> _32), k0, k1)
            words[0, i], words[1, i], words[2, i], words[3, i] = a, b, c, d
        return
    for i in range(BLOCK):
        put_counter(words, i, row, quad)
        quad += 1
        if quad == quads:
            quad, row = int64(0), row + 1
    words_of(words, key)


@njit(inline="always")
def put_counter(words, i, row, quad):
    """Place counter `i` of a block."""
    words[0, i], words[1, i] = uint32(quad), uint32(uint64(quad) >> _32)
    words[2, i], words[3, i] = uint32(row), uint32(uint64(row) >> _32)


@kernel
def words_of(
    words,  # (4, BLOCK) uint32, counters; overwritten
    key,  # (), int64
):
    """The words of these counters."""
    k0, k1 = uint32(key), uint32(uint64(key) >> _32)
    for i in range(BLOCK):
        a, b, c, d = _philox(words[0, i], words[1, i], words[2, i], words[3, i], k0, k1)
        words[0, i], words[1, i], words[2, i], words[3, i] = a, b, c, d


@kernel
def normals_of(
    words,  # (4, BLOCK) uint32, overwritten
    numbers,  # (4, BLOCK) float32, written
):
    """Normal numbers of the words: `arithmetic.normals`."""
    bits = numbers.view(np.int32)
    for h in (0, 2):
        for i in range(BLOCK):
            numbers[h, i] = float32(words[h, i]) * _STEP + _HALF_STEP
        for i in range(BLOCK):
            exponent = (bits[h, i] - _SQRT_HALF) >> int32(23)
            bits[h, i] -= exponent << int32(23)
            words[h, i] = uint32(exponent)
        for i in range(BLOCK):
            power, x = float32(int32(words[h, i])), numbers[h, i] - _ONE
            z = x * x
            y = (((_L0 * x + _L1) * x + _L2) * x + _L3) * x + _L4
            y = (((y * x + _L5) * x + _L6) * x + _L7) * x + _L8
            y = y * x * z + power * _LN2_LOW - z * _HALF
            radius = np.sqrt((x + y + power * _LN2_HIGH) * -_TWO)
            word = words[h + 1, i]
            quadrant = int32(word >> uint32(30))
            t = float32(int32(word & uint32(0x3FFFFFFF)) - int32(1 << 29)) * _TURN
            z = t * t
            sine = ((_S0 * z + _S1) * z + _S2) * z * t + t
            cosine = ((_C0 * z + _C1) * z + _C2) * z * z - z * _HALF + _ONE
            is_odd = (quadrant & int32(1)) != 0
            first, second = (sine if is_odd else cosine), (cosine if is_odd else sine)
            first_sign = _ONE - _TWO * float32((quadrant ^ (quadrant >> int32(1))) & int32(1))
            second_sign = _ONE - _TWO * float32(quadrant >> int32(1))
            numbers[h, i] = radius * (first * first_sign)
            numbers[h + 1, i] = radius * (second * second_sign)


@kernel
def fill_normal(
    out,  # (R, C) float32, written
    key,  # (), int64
    first_row,  # (), int64
):
    """Normal numbers of these rows."""
    words, numbers = np.empty((4, BLOCK), np.uint32), np.empty((4, BLOCK), np.float32)
    rows, columns = out.shape
    quads = (columns + 3) // 4
    for start in range(0, rows * quads, BLOCK):
        row, quad = start // quads, start % quads
        draw_words(key, first_row + row, quad, quads, words)
        normals_of(words, numbers)
        _store(numbers, out, row, quad, quads)


@kernel
def fill_normal_at(
    out,  # (L, C) float32, written
    key,  # (), int64
    row_L,  # (L,) int64
    first_quad,  # (), int64, column // 4 of the first column
):
    """Normal numbers of these rows, columns from 4 first_quad."""
    words, numbers = np.empty((4, BLOCK), np.uint32), np.empty((4, BLOCK), np.float32)
    quads = (out.shape[1] + 3) // 4
    for i in range(len(row_L)):
        for quad in range(0, quads, BLOCK):
            draw_words(key, row_L[i], first_quad + quad, first_quad + quad + BLOCK, words)
            normals_of(words, numbers)
            _store(numbers, out[i : i + 1], 0, quad, quads)


@kernel
def fill_uniform(
    out,  # (R, C) float32, written
    key,  # (), int64
    first_row,  # (), int64
):
    """Uniform numbers of these rows."""
    words, numbers = np.empty((4, BLOCK), np.uint32), np.empty((4, BLOCK), np.float32)
    rows, columns = out.shape
    quads = (columns + 3) // 4
    for start in range(0, rows * quads, BLOCK):
        row, quad = start // quads, start % quads
        draw_words(key, first_row + row, quad, quads, words)
        for j in range(4):
            for i in range(BLOCK):
                numbers[j, i] = uniform(words[j, i])
        _store(numbers, out, row, quad, quads)


@kernel
def _store(numbers, out, row, quad, quads):
    """Four columns of each counter, in order, without those behind the last."""
    rows, columns = out.shape
    if 4 * (quad + BLOCK) <= columns:
        part = out[row, 4 * quad : 4 * (quad + BLOCK)]
        for i in range(BLOCK):
            at = 4 * i
            part[at], part[at + 1] = numbers[0, i], numbers[1, i]
            part[at + 2], part[at + 3] = numbers[2, i], numbers[3, i]
        return
    for i in range(BLOCK):
        if row < rows:
            for j in range(min(4, columns - 4 * quad)):
                out[row, 4 * quad + j] = numbers[j, i]
        quad += 1
        if quad == quads:
            quad, row = 0, row + 1
