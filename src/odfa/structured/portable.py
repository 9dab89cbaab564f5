"""The same matrix in plain torch: any device, float32 or float64, forwards and adjoint. The kernels are the fast path.

Shape letters: `N` rows · `D` inputs · `M` outputs · `J` points of a block.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odfa.structured.keyed import UNIT, KeyedNumbers, by_columns, exchanged, plus_minus

_LARGEST = 6
"""log2 of the largest factor: H is a Kronecker product, and small dense factors run fastest on matrix units."""


@dataclass(frozen=True)
class Diagonals:
    """Signs, singular values and order of outputs in natural order, as tensors."""

    first_J: Tensor
    second_BJ: Tensor
    third_BJ: Tensor
    """S D3 / N."""
    fourth_J: Tensor
    """Signs of a block's outputs."""
    order_J: Tensor
    """Transform index of each output of a block."""

    @classmethod
    def of(cls, keyed: KeyedNumbers, num_blocks: int, like: Tensor) -> "Diagonals":
        """Of the first blocks, in dtype and device of `like`."""
        # The key draws everything in the order in which the kernels read it (`keyed`); here it is undone, so that
        # this file needs only plain transforms in natural order.
        points, signs = keyed.points, keyed.signs(num_blocks)
        values_J = by_columns(keyed.values[keyed.rows].reshape(-1), keyed.width) / points
        second_BJ, third_BJ = (np.stack([plus_minus(words) for words in block[:num_blocks]]) for block in signs)
        places = exchanged(points)
        third_BJ = np.stack([by_columns(row_J, keyed.width) for row_J in third_BJ]) * values_J
        unit_of = np.argsort(keyed.order)
        order_J = places.reshape(-1, UNIT)[unit_of].reshape(-1)
        fourth_J = plus_minus(keyed.signs4).reshape(-1, UNIT)[unit_of].reshape(-1)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)).to(like.dtype).to(like.device)

        return cls(
            tensor(plus_minus(keyed.signs1)),
            tensor(second_BJ[:, places]),
            tensor(third_BJ),
            tensor(fourth_J),
            torch.from_numpy(order_J).to(like.device),
        )


def walsh_hadamard(x_NJ: Tensor) -> Tensor:
    """x H along the last axis, H in natural order, unnormalised; J a power of two."""
    # H of J = 64 · 64 · … points is a Kronecker product: one small matrix product for each axis of the reshaped rows
    points = x_NJ.shape[-1]
    left, y = points.bit_length() - 1, x_NJ
    below = 1
    while left:
        log = min(_LARGEST, left)
        y = torch.matmul(_hadamard(1 << log, x_NJ), y.reshape(-1, 1 << log, below))
        below, left = below << log, left - log
    return y.reshape(x_NJ.shape)


def _hadamard(points: int, like: Tensor) -> Tensor:
    matrix = like.new_ones(1, 1)
    while len(matrix) < points:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def forward(x_ND: Tensor, diagonals: Diagonals, num_outputs: int, first_block: int = 0) -> Tensor:
    """p_NM = x B, outputs counted from those of block `first_block`."""
    points = len(diagonals.first_J)
    z_NJ = walsh_hadamard(torch.nn.functional.pad(x_ND, (0, points - x_ND.shape[1])) * diagonals.first_J)
    p_NM = x_ND.new_empty((len(x_ND), num_outputs))
    for b, start in enumerate(range(0, num_outputs, points), first_block):
        y_NJ = walsh_hadamard(walsh_hadamard(z_NJ * diagonals.second_BJ[b]) * diagonals.third_BJ[b])
        stop = min(num_outputs, start + points)
        order_m, signs_m = diagonals.order_J[: stop - start], diagonals.fourth_J[: stop - start]
        p_NM[:, start:stop] = y_NJ[:, order_m] * signs_m
    return p_NM


def adjoint(p_NM: Tensor, diagonals: Diagonals, num_inputs: int) -> Tensor:
    """x_ND = p B^T: the same transforms in reverse, H being its own transpose."""
    points = len(diagonals.first_J)
    z_NJ = p_NM.new_zeros((len(p_NM), points))
    for b, start in enumerate(range(0, p_NM.shape[1], points)):
        part_Nm = p_NM[:, start : start + points]
        y_NJ = p_NM.new_zeros((len(p_NM), points))
        count = part_Nm.shape[1]
        y_NJ[:, diagonals.order_J[:count]] = part_Nm * diagonals.fourth_J[:count]
        z_NJ += walsh_hadamard(walsh_hadamard(y_NJ) * diagonals.third_BJ[b]) * diagonals.second_BJ[b]
    return (walsh_hadamard(z_NJ) * diagonals.first_J)[:, :num_inputs]
