"""Launches Triton's kernel of this room."""

import torch
from torch import Tensor

from odfa.draws.accelerated import UNFUSED
from odfa.opu.twin.electrons.reading import Reading
from odfa.structured.accelerated import at

COUNTERS = 256
"""Counters of a program, four pixels each."""


def count_on_accelerator(mean_RC: Tensor, counts_RC: Tensor, reading: Reading, first_row: int) -> None:
    """Counts of these frames; `mean_RC` float32 or float64, both contiguous, `counts_RC` written."""
    from odfa.opu.twin.electrons.triton_electrons import count

    (rows, columns), quads = mean_RC.shape, -(-mean_RC.shape[1] // 4)
    with at(mean_RC.device):
        count[(-(-rows * quads // COUNTERS),)](
            mean_RC, counts_RC, reading.bright.key, reading.faint.key, first_row, rows, columns, quads,
            **constants(reading, mean_RC.dtype), COUNTERS=COUNTERS, **UNFUSED,
        )  # fmt: skip


def constants(reading: Reading, dtype: torch.dtype) -> dict[str, bool | float]:
    """What the kernel is compiled for, with means of this type."""
    return {
        "SHOT": reading.shot,
        "READ": reading.read_e,
        "READ_SQUARED": reading.read_e**2,
        "COUNTS_PER_E": reading.counts_per_e,
        "FULL_SCALE": float(reading.full_scale),
        "WHOLE": 2.0 ** (23 if dtype == torch.float32 else 52),
    }
