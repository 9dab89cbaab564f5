"""`arithmetic`, compiled by numba for processors: from mean electrons to counts in one pass, the same counts."""

import numpy as np
from numba import float32, int32, int64, njit

from odfa.draws.kernels import BLOCK, draw_words, normals_of, put_counter, uniform, words_of
from odfa.opu.twin.electrons.arithmetic import EXP, GAUSSIAN_FROM_E, Q0, Q1, Q2, QUANTILE_FROM_E, SQUARINGS, TERMS
from odfa.structured.compiled import kernel

_PIXELS = 4 * BLOCK
_FAINT = 16 * BLOCK
"""Faint pixels that are put aside before they are drawn together, as vectors."""
_GAUSSIAN_FROM, _QUANTILE_FROM = np.float32(GAUSSIAN_FROM_E), np.float32(QUANTILE_FROM_E)
_Q00, _Q01 = (np.float32(c) for c in Q0)
_Q10, _Q11 = (np.float32(c) for c in Q1)
_Q20, _Q21, _Q22 = (np.float32(c) for c in Q2)
_EXP = np.array(EXP, np.float32)
_INVERSE = np.array([1, *(1 / k for k in range(1, TERMS))], np.float32)
_ZERO, _ONE, _PART = np.float32(0), np.float32(1), np.float32(-(2.0**-SQUARINGS))


@kernel
def count(
    mean,  # (R, C) float32 or float64: expected electrons
    counts,  # (R, C) uint8, int16 or int32, written
    bright_key,  # (), int64
    faint_key,  # (), int64
    first_row,  # (), int64
    shot,  # (), bool
    read,  # (), float32: read noise, electrons rms
    read_squared,  # (), float32
    counts_per_e,  # (), of mean's type
    full_scale,  # (), of mean's type
    whole,  # (), of mean's type: a number beyond which there are no fractions, 2^23 or 2^52
):
    """Counts of these frames."""
    words, numbers = np.empty((4, BLOCK), np.uint32), np.empty((4, BLOCK), np.float32)
    noise, hit = np.empty(_PIXELS, np.float32), np.empty(_PIXELS, np.int32)
    places, noises, num_faint = np.empty(_FAINT + _PIXELS, np.int64), np.empty(_FAINT + _PIXELS, np.float32), 0
    rows, columns = mean.shape
    quads = (columns + 3) // 4
    mean_N, counts_N = mean.reshape(-1), counts.reshape(-1)
    for start in range(0, rows * quads, BLOCK):
        row, quad = start // quads, start % quads
        draw_words(bright_key, first_row + row, quad, quads, words)
        normals_of(words, numbers)
        first = row * columns + 4 * quad
        pixels = min(_in_order(numbers, noise, quad, quads, columns), mean_N.size - first)
        mean_X, counts_X = mean_N[first : first + pixels], counts_N[first : first + pixels]
        if not shot:
            for i in range(pixels):
                electrons = noise[i] * read + mean_X[i]
                counts_X[i] = _counted(electrons, counts_per_e, full_scale, whole)
            continue
        found = int32(0)
        for i in range(pixels):
            electrons = noise[i] * np.sqrt(float32(mean_X[i]) + read_squared) + mean_X[i]
            counts_X[i] = _counted(electrons, counts_per_e, full_scale, whole)
            found += int32(mean_X[i] < _GAUSSIAN_FROM)
        if found:
            hits = 0
            for i in range(pixels):
                hit[hits] = i
                hits += int64(mean_X[i] < _GAUSSIAN_FROM)
            for h in range(hits):
                places[num_faint + h], noises[num_faint + h] = first + hit[h], noise[hit[h]]
            num_faint += hits
            if num_faint > _FAINT:
                scale = (read, counts_per_e, full_scale, whole)
                _count_faint(mean_N, counts_N, columns, first_row, faint_key, places, noises, num_faint, scale)
                num_faint = 0
    if num_faint:
        scale = (read, counts_per_e, full_scale, whole)
        _count_faint(mean_N, counts_N, columns, first_row, faint_key, places, noises, num_faint, scale)


@njit(inline="always")
def _counted(electrons, counts_per_e, full_scale, whole):
    """Clip and round; halves go to the even count, as beyond `whole` there are no fractions."""
    scaled = electrons * counts_per_e
    scaled = scaled if scaled > _ZERO else _ZERO
    scaled = scaled if scaled < full_scale else full_scale
    return int32((scaled + whole) - whole)


@kernel
def _in_order(numbers, noise, quad, quads, columns):
    """The four numbers of each counter one after another, without those behind the last column; how many there are."""
    if columns == 4 * quads or quad + BLOCK < quads:
        for i in range(BLOCK):
            at = 4 * i
            noise[at], noise[at + 1] = numbers[0, i], numbers[1, i]
            noise[at + 2], noise[at + 3] = numbers[2, i], numbers[3, i]
        return 4 * BLOCK
    at, left = 0, columns - 4 * quad
    for i in range(BLOCK):
        for j in range(min(4, left)):
            noise[at] = numbers[j, i]
            at += 1
        left -= 4
        if left <= 0:
            left = columns
    return at


@kernel
def _count_faint(mean, counts, columns, first_row, key, places, noises, num_faint, scale):
    """Counts of the faint pixels at these places."""
    read, counts_per_e, full_scale, whole = scale
    words, numbers = np.empty((4, BLOCK), np.uint32), np.empty((4, BLOCK), np.float32)
    lambdas, chances, drawn = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, num_faint, BLOCK):
        size = min(BLOCK, num_faint - start)
        for i in range(BLOCK):
            place = places[start + min(i, size - 1)]
            put_counter(words, i, first_row + place // columns, place % columns)
            lambdas[i] = float32(mean[place])
        words_of(words, key)
        for i in range(BLOCK):
            chances[i] = uniform(words[2, i])
        normals_of(words, numbers)
        _quantiles(lambdas, noises[start : start + BLOCK], drawn)
        for i in range(size):
            if lambdas[i] < _QUANTILE_FROM:
                drawn[i] = _inverted(lambdas[i], chances[i])
            electrons = numbers[0, i] * read + drawn[i]
            counts[places[start + i]] = _counted(electrons, counts_per_e, full_scale, whole)


@kernel
def _quantiles(lambdas, normals, drawn):
    """Poisson quantiles: `arithmetic.quantile`, for means of 0 too, of which it says nothing."""
    for i in range(BLOCK):
        mean, w = max(lambdas[i], _QUANTILE_FROM), normals[i]
        root, square = np.sqrt(mean), w * w
        inverse = _ONE / root
        second = (square * _Q22 + _Q21) * square + _Q20
        first = (square * _Q11 + _Q10) * w
        rest = (second * inverse + first) * inverse + (square * _Q01 + _Q00)
        quantile = np.floor((root * w + mean) + rest)
        drawn[i] = max(quantile, _ZERO)


@njit(inline="always")
def _inverted(mean, chance):
    """The inverse of the distribution function, `arithmetic.inverted`, as far as the sum has to go."""
    t = mean * _PART
    term = _EXP[0]
    for n in range(1, len(_EXP)):
        term = term * t + _EXP[n]
    for _ in range(SQUARINGS):
        term = term * term
    total, before, k = term, float32(-1), 0
    while chance >= total and total > before and k < TERMS - 1:
        k += 1
        term = term * mean * _INVERSE[k]
        before, total = total, total + term
    return float32(k)
