"""The structured matrix spelled out in float64, from the keyed numbers and scipy's Walsh-Hadamard matrix alone."""

import numpy as np
from scipy.linalg import hadamard

from odfa.structured.keyed import KeyedNumbers


def sign(words: np.ndarray, entry: int) -> int:
    return -1 if int(words[entry // 32]) >> (entry % 32) & 1 else 1


def exchange(place: int) -> int:
    """Bits 0-3 and 5-8 trade places."""
    low, high = place & 15, place >> 5 & 15
    return (place & ~0b1_1110_1111) | low << 5 | high


def matrix(seed: int, num_inputs: int, num_outputs: int) -> np.ndarray:
    """B_DM, entry by entry."""
    return project(seed, np.eye(num_inputs), num_outputs)


def project(seed: int, x_ND: np.ndarray, num_outputs: int) -> np.ndarray:
    """x_ND B_DM, factor by factor as the docstring of `keyed` has it: cheaper than B_DM for few rows."""
    num_inputs = x_ND.shape[1]
    keyed = KeyedNumbers(seed, num_inputs)
    points, width = keyed.points, keyed.width
    num_blocks = -(-num_outputs // points)
    signs2, signs3 = keyed.signs(num_blocks)
    h = hadamard(points).astype(np.float64)
    signs1 = np.array([sign(keyed.signs1, i) for i in range(points)])
    first = h[:, :num_inputs] @ (signs1[:num_inputs, None] * x_ND.T)
    units_in_row, num_rows = width // 32, points // width
    out = []
    for b in range(num_blocks):
        second = np.ones(points)
        third, singular = np.ones(points), np.ones(points)
        for place in range(points):
            second[exchange(place)] = sign(signs2[b], place)
            row, unit, lane = place // width, place % width // 32, place % 32
            kept = unit * num_rows + row
            third[place] = sign(signs3[b], kept * 32 + lane)
            singular[place] = keyed.values[keyed.rows[kept], lane]
        assert units_in_row * num_rows * 32 == points
        block = h @ ((singular * third)[:, None] * (h @ (second[:, None] * first))) / points
        ordered = np.empty_like(block)
        for place in range(points):
            output = keyed.order[place // 32] * 32 + place % 32
            ordered[output] = sign(keyed.signs4, place) * block[exchange(place)]
        out.append(ordered)
    return np.concatenate(out)[:num_outputs].T
