"""Philox4x32-10 in Python's integers, and Box-Muller in float64: nothing of odfa's."""

import math

MASK = 2**32 - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Salmon, Moraes, Dror & Shaw, SC 2011, section 3.3."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def words(key: int, row: int, column: int) -> tuple[int, int, int, int]:
    """The words of the counter that a column lies in."""
    quad = column // 4
    return philox((quad & MASK, quad >> 32, row & MASK, row >> 32), (key & MASK, key >> 32))


def uniform(key: int, row: int, column: int) -> float:
    return (words(key, row, column)[column % 4] >> 8) / 2**24


def double_uniform(key: int, row: int, column: int) -> float:
    four = words(key, row, 2 * column)
    high, low = four[:2] if column % 2 == 0 else four[2:]
    return (high * 2**32 + low >> 11) / 2**53


def normal(key: int, row: int, column: int) -> float:
    four = words(key, row, column)
    radius_word, angle_word = four[:2] if column % 4 < 2 else four[2:]
    radius = math.sqrt(-2 * math.log((radius_word + 0.5) / 2**32))
    # an eighth of a turn back, so that a quadrant lies around an axis
    angle = 2 * math.pi * (angle_word / 2**32 - 1 / 8)
    return radius * (math.cos(angle) if column % 2 == 0 else math.sin(angle))
