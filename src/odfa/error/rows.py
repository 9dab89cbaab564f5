"""The output error as rows: one per token where the output is a sequence, one per sample otherwise."""

import torch
from torch import Tensor

from odfa.flow import ErrorSignal


def error_rows(grad_y: Tensor, tap: str) -> ErrorSignal:
    """Flatten dL/dy to `e_ND`, keeping its leading shape: (B, T) for sequences, (B,) otherwise.

    A three-axis output (B, T, D) is a sequence of tokens; two axes (B, D) and images (B, C, H, W) give one row per
    sample. Every row stays as it is, before any mean over the batch; half precisions become float32.
    """
    if grad_y.dtype in (torch.float16, torch.bfloat16):
        grad_y = grad_y.float()
    if grad_y.ndim == 3:
        return ErrorSignal(e_ND=grad_y.flatten(0, 1), tap=tap, lead=tuple(grad_y.shape[:2]))
    rows = grad_y.shape[0] if grad_y.ndim else 1
    return ErrorSignal(e_ND=grad_y.reshape(rows, -1), tap=tap, lead=(rows,))
