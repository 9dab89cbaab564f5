"""Rows of zeros (padding, masked tokens) take no light and no work; rows of a few non-zeros take little."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from odfa.errors import ConfigError


def project_lit(e_ND: Tensor, num_outputs: int, project: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `project` to the rows of `e_ND` that are not all zero; the others give zeros."""
    lit_N = e_ND.any(dim=1)
    if lit_N.all() and len(lit_N):
        return project(e_ND)
    p_NM = e_ND.new_zeros((len(e_ND), num_outputs))
    if lit_N.any():
        p_NM[lit_N] = project(e_ND[lit_N])
    return p_NM


def check_shape(num_inputs: int, num_outputs: int) -> None:
    """Refuse shapes without inputs or outputs.

    Raises:
        ConfigError: a width is not a positive integer.
    """
    for name, width in (("num_inputs", num_inputs), ("num_outputs", num_outputs)):
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ConfigError(f"{name} must be a positive integer, got {width!r}")


def check_seed(seed: int) -> None:
    """Refuse keys that are not integers.

    Raises:
        ConfigError: `seed` is not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"seed must be an integer, got {seed!r}")


_LEAST_INPUTS, _FEWER = 256, 64
"""Gathering replaces a dense product up to one lit entry in 64, where it takes half the time or less
(benchmarks/crossover.py)."""


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


def few_nonzeros(e_ND: Tensor) -> Few | None:
    """The non-zeros of rows that have few of them, None if a dense product is the better way."""
    if e_ND.shape[1] < _LEAST_INPUTS or not len(e_ND):
        return None
    lit_N = torch.count_nonzero(e_ND, dim=1)
    if int(lit_N.sum()) * _FEWER > e_ND.numel():
        return None
    row_L, place_L = e_ND.nonzero(as_tuple=True)
    return Few(place_L, e_ND[row_L, place_L], lit_N.cumsum(0) - lit_N)
