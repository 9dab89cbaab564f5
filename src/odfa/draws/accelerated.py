"""Launches Triton's kernels of this room."""

from torch import Tensor

from odfa.structured.accelerated import at

_COUNTERS = 512
"""Counters of a program, four numbers each."""
UNFUSED = {"num_warps": 4, "enable_fp_fusion": False}
"""Options of kernels whose numbers are those of a processor: each product and each sum rounded."""


def fill_on_accelerator(law: str, out_RC: Tensor, key: int, first_row: int) -> None:
    """Numbers of these rows, `law` uniform or normal; `out_RC` float32, contiguous, written."""
    from odfa.draws.triton_draws import fill

    (rows, columns), quads = out_RC.shape, -(-out_RC.shape[1] // 4)
    with at(out_RC.device):
        fill[(-(-rows * quads // _COUNTERS),)](
            out_RC, key, first_row, rows, columns, quads, NORMAL=law == "normal", COUNTERS=_COUNTERS, **UNFUSED
        )
