"""Rows of a few non-zeros (sampled errors, patterns with a few lit mirrors) by gathering instead of products."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_LEAST_INPUTS, _FEWER = 256, 64
"""Gathering replaces a dense product up to one lit entry in 64, where it takes half the time or less
(benchmarks/crossover.py)."""


def is_few(num_entries: int, num_inputs: int) -> bool:
    """Whether gathering `num_entries` rows of a matrix of `num_inputs` rows is faster than a dense product."""
    return num_inputs >= _LEAST_INPUTS and num_entries * _FEWER <= num_inputs


@dataclass(frozen=True)
class Few:
    """Rows of few non-zeros as places, weights, and where each row begins."""

    place_L: Tensor
    weight_L: Tensor
    start_N: Tensor

    def times(self, matrix_DM: Tensor) -> Tensor:
        """Weighted sums of rows of the matrix, (N, M)."""
        return torch.nn.functional.embedding_bag(
            self.place_L, matrix_DM, self.start_N, mode="sum", per_sample_weights=self.weight_L
        )

    def numbered(self) -> tuple[Tensor, "Few"]:
        """The places that occur (U,), in order, and the same rows over these places alone."""
        place_U, place_L = torch.unique(self.place_L, return_inverse=True)
        return place_U, replace(self, place_L=place_L)


def few_nonzeros(e_ND: Tensor) -> Few | None:
    """The non-zeros of rows that have few of them; None if a dense product is faster, as always on an accelerator."""
    if e_ND.shape[1] < _LEAST_INPUTS or not len(e_ND) or e_ND.device.type != "cpu":
        return None
    lit_N = torch.count_nonzero(e_ND, dim=1)
    if int(lit_N.sum()) * _FEWER > e_ND.numel():
        return None
    row_L, place_L = e_ND.nonzero(as_tuple=True)
    return Few(place_L, e_ND[row_L, place_L], lit_N.cumsum(0) - lit_N)


def few_lit(bits_FD: Tensor) -> Few | None:
    """The lit entries of boolean patterns that have few of them, with weight one; None if a dense product is faster."""
    if bits_FD.shape[1] < _LEAST_INPUTS or bits_FD.device.type != "cpu":
        return None
    bits = bits_FD.numpy()  # NumPy counts and finds booleans ten times faster than torch
    if np.count_nonzero(bits) * _FEWER > bits.size:
        return None
    flat_L = np.flatnonzero(bits)
    row_L, place_L = flat_L // bits.shape[1], flat_L % bits.shape[1]
    start_N = np.searchsorted(row_L, np.arange(len(bits)))
    return Few(torch.from_numpy(place_L), torch.ones(len(place_L)), torch.from_numpy(start_N))
