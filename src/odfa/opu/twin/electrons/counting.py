"""The counts of pixels with a known mean of electrons, by what computes on their device."""

import numpy as np
import torch
from torch import Tensor

from odfa.draws.draws import in_threads
from odfa.opu.twin.electrons import arithmetic
from odfa.opu.twin.electrons.reading import Reading
from odfa.structured import compiler_on

_NUMBERS_A_CALL = 2**19
"""Pixels that torch's operations take at a time: their temporaries take a hundred times as much memory."""


def count(mean_RC: Tensor, reading: Reading, first_row: int = 0) -> Tensor:
    """Counts of frames (R) of pixels (C) with `mean_RC` expected electrons, float32 or float64.

    Noise depends on the row, counted from `first_row`, and on the column alone: neither on the device, nor on how
    frames are shared among calls.
    """
    if not reading.shot and not reading.read_e:
        return arithmetic.counted(mean_RC, reading.counts_per_e, reading.full_scale, reading.dtype)
    mean_RC, by = mean_RC.detach().contiguous(), compiler_on(mean_RC.device)
    counts_RC = torch.empty(mean_RC.shape, dtype=reading.dtype, device=mean_RC.device)
    if not mean_RC.numel():
        return counts_RC
    if by == "numba":
        _by_numba(mean_RC, counts_RC, reading, first_row)
    elif by == "triton":
        from odfa.opu.twin.electrons.accelerated import count_on_accelerator

        count_on_accelerator(mean_RC, counts_RC, reading, first_row)
    else:
        _by_torch(mean_RC, counts_RC, reading, first_row)
    return counts_RC


def _by_numba(mean_RC: Tensor, counts_RC: Tensor, reading: Reading, first_row: int) -> None:
    from odfa.opu.twin.electrons import kernels

    means, counts = mean_RC.numpy(), counts_RC.numpy()
    number = means.dtype.type
    scale = (np.float32(reading.read_e), np.float32(reading.read_e**2), number(reading.counts_per_e))
    limits = (number(reading.full_scale), number(2.0 ** (23 if mean_RC.dtype == torch.float32 else 52)))

    def work(part: slice) -> None:
        keys = (reading.bright.key, reading.faint.key, first_row + part.start)
        kernels.count(means[part], counts[part], *keys, reading.shot, *scale, *limits)

    in_threads(work, *means.shape)


def _by_torch(mean_RC: Tensor, counts_RC: Tensor, reading: Reading, first_row: int) -> None:
    rows, columns = mean_RC.shape
    step = max(1, _NUMBERS_A_CALL // columns)
    noise = (reading.read_e, reading.shot, reading.bright, reading.faint)
    scale = (reading.counts_per_e, reading.full_scale, reading.dtype)
    for start in range(0, rows, step):
        part = slice(start, min(rows, start + step))
        electrons_RC = arithmetic.electrons(mean_RC[part], *noise, first_row + start)
        counts_RC[part] = arithmetic.counted(electrons_RC, *scale)
