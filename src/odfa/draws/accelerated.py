"""Launches Triton's kernels of this room."""

import torch
from torch import Tensor

from odfa.structured.accelerated import at, precision_on

_COUNTERS = 512
"""Counters of a program, four numbers each."""
_ROWS, _LEAST_ROWS = 128, 16
"""Rows of a program that multiplies: the more, the less often each number is made. Not measured yet."""
_QUADS, _INPUTS = 32, 32
"""Columns of such a program, over four, and inputs of a step."""
_GATHERED_QUADS = 128
"""Columns of a program that gathers, over four."""
UNFUSED = {"num_warps": 4, "enable_fp_fusion": False}
"""Options of kernels whose numbers are those of a processor: each product and each sum rounded."""
MULTIPLIED = {**UNFUSED, "num_warps": 8}
"""The same for tiles of a product."""


def fill_on_accelerator(law: str, out_RC: Tensor, key: int, first_row: int) -> None:
    """Numbers of these rows, `law` uniform or normal; `out_RC` float32, contiguous, written."""
    from odfa.draws.triton_draws import fill

    (rows, columns), quads = out_RC.shape, -(-out_RC.shape[1] // 4)
    with at(out_RC.device):
        fill[(-(-rows * quads // _COUNTERS),)](
            out_RC, key, first_row, rows, columns, quads, NORMAL=law == "normal", COUNTERS=_COUNTERS, **UNFUSED
        )


def multiply_normal(x_ND: Tensor, out_NM: Tensor, key: int, *, precision: str | None = None) -> None:
    """out = x B, B_dm the normal number of row d and column m; any strides, sums in float32, B never in memory.

    Args:
        x_ND: float32, float16, bfloat16, int8 or bool. B is rounded to the half precision that it has.
        out_NM: float32, float16 or bfloat16, on the same device, written.
        key: key of the numbers.
        precision: how products of float32 are computed; none: as `precision_on` says.
    """
    from odfa.draws.triton_product import multiply

    x_ND = x_ND.detach().view(torch.int8) if x_ND.dtype == torch.bool else x_ND.detach()
    num_rows, num_outputs = out_NM.shape
    if not out_NM.numel():
        return
    rows = max(_LEAST_ROWS, min(_ROWS, 1 << (num_rows - 1).bit_length()))
    # Triton's interpreter multiplies no bfloat16
    wide = x_ND.device.type == "cpu" and x_ND.dtype == torch.bfloat16
    with at(x_ND.device):
        multiply[-(-num_outputs // (4 * _QUADS)), -(-num_rows // rows)](
            x_ND, *x_ND.stride(), *x_ND.shape, out_NM, *out_NM.stride(), num_outputs, key,
            ROWS=rows, QUADS=_QUADS, INPUTS=_INPUTS, PRECISION=precision or precision_on(x_ND.device), WIDE=wide,
            **MULTIPLIED,
        )  # fmt: skip


def gather_normal(index_NF: Tensor, gain_NF: Tensor, out_NM: Tensor, key: int) -> None:
    """out_nm = sum_F gain B_dm in float32, d the index of each entry (int64) and B as in `multiply_normal`."""
    from odfa.draws.triton_product import gather

    (num_rows, num_outputs), blocks = out_NM.shape, -(-out_NM.shape[1] // (4 * _GATHERED_QUADS))
    if not num_rows:
        return
    with at(out_NM.device):
        gather[(num_rows * blocks,)](
            index_NF.contiguous(), gain_NF.contiguous(), index_NF.shape[1], out_NM, num_outputs, key, blocks,
            QUADS=_GATHERED_QUADS, **UNFUSED,
        )  # fmt: skip
