"""What a key means: signs, singular values and the order of outputs of a structured Gaussian matrix.

    B_b = D4 H S D3_b H D2_b H D1 / N,    N = 2^k >= max(n, 2048),   b = 0, 1, …: N outputs each

H is the Walsh-Hadamard matrix in natural (Sylvester) order, D are random signs, S are the singular values of a square
Gaussian matrix (quarter circle law). The first H D1 is shared by all blocks, and so is D4, without which every two
outputs a fixed distance apart would be correlated with the same sign. Outputs come in a keyed order, so that the first
m of them are a random subset: of rows in natural order every power-of-two part would be a Walsh-Hadamard matrix again,
and the spectrum of B not that of a Gaussian matrix.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from odfa.errors import ConfigError
from odfa.keys import numpy_generator

_STREAM = int.from_bytes(b"hadamar")
_SIGNS, _VALUES, _ORDER, _BLOCK = range(4)
UNIT, ROW = 32, 4096
LEAST_LOG, MOST_LOG = 11, 24
"""With 1024 points rectangles of four entries are visibly dependent; 2^24 inputs are sixteen times the OPU's."""
_VALUE_ROWS = 64
"""Rows of the table of singular values: 2048 different ones, 8 KB as float32."""


@dataclass
class KeyedNumbers:
    """The keyed numbers for one number of inputs, in the order in which the kernels read them."""

    seed: int
    num_inputs: int
    _blocks: np.ndarray = field(init=False, repr=False)
    """D2 and D3 drawn so far, (2, blocks, N / 32) words."""

    def __post_init__(self) -> None:
        if self.num_inputs > 1 << MOST_LOG:
            raise ConfigError(f"expected at most 2^{MOST_LOG} inputs, got {self.num_inputs}")
        self._blocks = np.empty((2, 0, self.points // UNIT), dtype=np.uint32)

    @property
    def log_points(self) -> int:
        """k = log2 N."""
        return max(LEAST_LOG, (self.num_inputs - 1).bit_length())

    @property
    def points(self) -> int:
        """N, inputs after padding and outputs of a block."""
        return 1 << self.log_points

    @property
    def width(self) -> int:
        """Entries of a row in memory."""
        return min(self.points, ROW)

    @cached_property
    def signs1(self) -> np.ndarray:
        """D1: one bit per entry, 32-bit words; a set bit is a minus."""
        return np.asarray(self._words(_SIGNS, 0, 1)[0])

    @cached_property
    def signs4(self) -> np.ndarray:
        """D4, in the order of exchanged tiles."""
        return np.asarray(self._words(_SIGNS, 1, 1)[0])

    def signs(self, num_blocks: int) -> tuple[np.ndarray, np.ndarray]:
        """D2 and D3 of the first blocks, each (blocks, N / 32) words.

        D2 is in the order of exchanged tiles, D3 by units of 32: unit of a row, row.
        """
        known = self._blocks.shape[1]
        if known < num_blocks:
            new = [self._words(_BLOCK, block, 2) for block in range(known, num_blocks)]
            self._blocks = np.concatenate([self._blocks, np.stack(new, axis=1)], axis=1)
        return self._blocks[0], self._blocks[1]

    def _words(self, *key: int) -> np.ndarray:
        # one generator for each name: block b can be drawn without the blocks before it, and stays as it is when more
        # follow
        *name, count = key
        generator = numpy_generator(_STREAM, self.seed, self.num_inputs, *name)
        return generator.integers(0, 2**32, (count, self.points // UNIT), dtype=np.uint32)

    @cached_property
    def values(self) -> np.ndarray:
        """Table of singular values, (rows, 32) float64, mean square 1.

        Every lane takes one value from each of `rows` neighbouring groups of quantiles, so that no lane is larger than
        another on average: what lanes had in common would show as correlated outputs.
        """
        rows = min(_VALUE_ROWS, self.points // UNIT)
        generator = numpy_generator(_STREAM, self.seed, self.num_inputs, _VALUES)
        table = generator.permuted(quarter_circle(rows * UNIT).reshape(rows, UNIT), axis=1)
        return generator.permuted(table, axis=0)

    @cached_property
    def rows(self) -> np.ndarray:
        """Row of `values` that each unit uses, bytes, in the order of D3."""
        rows = np.resize(np.arange(len(self.values), dtype=np.uint8), self.points // UNIT)
        return numpy_generator(_STREAM, self.seed, self.num_inputs, _VALUES, 1).permutation(rows)

    @cached_property
    def order(self) -> np.ndarray:
        """Output unit of each unit in memory, int32."""
        generator = numpy_generator(_STREAM, self.seed, self.num_inputs, _ORDER)
        return generator.permutation(np.arange(self.points // UNIT, dtype=np.int32))


def exchanged(points: int) -> np.ndarray:
    """Natural index of each place of exchanged tiles: bits 0-3 and 5-8 trade places."""
    place = np.arange(points)
    low, high = place & 15, place >> 5 & 15
    return place & ~0b111101111 | low << 5 | high


def by_columns(values: np.ndarray, width: int) -> np.ndarray:
    """From the order of D3 (unit of a row, row, lane) to natural order."""
    return values.reshape(width // UNIT, -1, UNIT).transpose(1, 0, 2).reshape(-1)


def plus_minus(words: np.ndarray) -> np.ndarray:
    """+1 and -1 (int8) from sign bits in words, lowest bit first."""
    bits = np.unpackbits(np.ascontiguousarray(words).astype("<u4").view(np.uint8), bitorder="little")
    return 1 - 2 * bits.astype(np.int8)


def quarter_circle(points: int) -> np.ndarray:
    """Quantiles of p(s) = sqrt(4 - s^2) / pi on [0, 2]: singular values of a square matrix of variance 1 / points."""
    # s = 2 sin(theta / 2) turns the cumulative law into (theta + sin(theta)) / pi, monotone and easy to tabulate
    theta = np.linspace(0.0, math.pi, 2**15 + 1)
    middle = (np.arange(points) + 0.5) / points
    values = 2 * np.sin(np.interp(middle, (theta + np.sin(theta)) / math.pi, theta) / 2)
    return np.asarray(values / np.sqrt(np.mean(values**2)))
