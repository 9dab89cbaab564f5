"""The output error as rows: one per token where the output is a sequence, one per sample otherwise."""

from torch import Tensor

from odfa.flow import ErrorSignal


def error_rows(grad_y: Tensor, tap: str) -> tuple[ErrorSignal, tuple[int, ...]]:
    """Flatten dL/dy to `e_ND` and return it with its leading shape: (B, T) for sequences, (B,) otherwise.

    A three-axis output (B, T, D) is a sequence of tokens; two axes (B, D) and images (B, C, H, W) give one row per
    sample. Rows that are exactly zero (padding, label -100) are masked and cost no light.
    """
    if grad_y.ndim == 3:
        lead: tuple[int, ...] = tuple(grad_y.shape[:2])
        e_ND = grad_y.flatten(0, 1)
    else:
        lead = (grad_y.shape[0],) if grad_y.ndim else (1,)
        e_ND = grad_y.reshape(lead[0], -1)
    return ErrorSignal(e_ND=e_ND, tap=tap, mask_N=e_ND.ne(0).any(dim=1)), lead
