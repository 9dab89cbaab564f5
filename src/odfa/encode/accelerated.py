"""Launches Triton's kernels of this room."""

from torch import Tensor

from odfa.structured.accelerated import at

_BLOCK = 2048
"""Entries of a row that a program reads at a time. Not measured yet."""
OPTIONS = {"num_warps": 8, "enable_fp_fusion": False}
"""Options of the kernel; products and sums are rounded as torch rounds them."""


def draw_entries_on_accelerator(e_ND: Tensor, uniform_N2: Tensor, index_NF: Tensor, gain_NF: Tensor) -> None:
    """`quantise.drawn_entries` of float32 rows with these uniform numbers; `index_NF`, `gain_NF` contiguous, written.

    Cumulative sums have another order than torch's, so where a draw falls within their rounding of the border of two
    entries it may be the other one. The same rows and numbers always give the same entries.
    """
    from odfa.encode.triton_entries import draw_entries

    if not len(e_ND):
        return
    with at(e_ND.device):
        draw_entries[(len(e_ND),)](
            e_ND, *e_ND.stride(), e_ND.shape[1], uniform_N2.contiguous(), index_NF.shape[1] // 2, index_NF, gain_NF,
            BLOCK=_BLOCK, **OPTIONS,
        )  # fmt: skip
