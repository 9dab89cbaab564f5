"""The output error as rows: one per token where the output is a sequence, one per sample otherwise."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor

from odfa import devices
from odfa.error.by_rows import HeadError
from odfa.error.tap import Tap
from odfa.errors import MatchError
from odfa.flow import ErrorInChunks, ErrorSignal, wide

Read = Mapping[int, tuple[Tensor | HeadError | None, Tensor, torch.Size]]
"""Number of a tap → dL/dy (None where the loss does not depend on it), an empty tensor of its kind, the shape of y."""


def leading_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leading shape of the rows of an output of `shape`: two axes where it has three, otherwise one."""
    return shape[:2] if len(shape) == 3 else (shape[0] if shape else 1,)


def error_rows(grad_y: Tensor, tap: str) -> ErrorSignal:
    """Flatten dL/dy to `e_ND`, keeping its leading shape: (B, T) for sequences, (B,) otherwise.

    A three-axis output (B, T, D) is a sequence of tokens; two axes (B, D) and images (B, C, H, W) give one row per
    sample. Every row stays as it is, before any mean over the batch; half precisions become float32 unless the
    device multiplies them as they are (`devices.multiplies`). An empty batch has no rows and keeps its width.
    """
    if not devices.multiplies(grad_y.dtype, grad_y.device):
        grad_y = wide(grad_y)
    lead = leading_shape(tuple(grad_y.shape))
    if grad_y.ndim == 3:
        return ErrorSignal(e_ND=grad_y.flatten(0, 1), tap=tap, lead=lead)
    if grad_y.ndim < 2:
        grad_y = grad_y.reshape(-1, 1)
    return ErrorSignal(e_ND=grad_y.flatten(1), tap=tap, lead=lead)


class Errors:
    """The errors of several taps side by side in one row, e_ND with D the sum of their widths.

    A tap that the loss does not depend on has a zero error. Where one head has a row per sample and another one a row
    per token, a sample's error is shared equally by its tokens: summed over them it is what it was.
    """

    def __init__(self, taps: Sequence[Tap]) -> None:
        self.taps = taps
        self._widths: dict[int, int] = {}

    def row(self, read: Read) -> ErrorSignal:
        """The row of one backward pass.

        Raises:
            MatchError: the heads' outputs hold different samples or tokens, or a head has not run yet.
        """
        if len(self.taps) == 1 and isinstance(made := read[0][0], HeadError):
            lead = leading_shape(tuple(read[0][2]))
            return ErrorInChunks(tap=str(self.taps[0]), lead=lead, made=made.chunks, like_0D=made.like)
        found = {
            tap: error_rows(grad if isinstance(grad, Tensor) else like.new_zeros(shape), str(self.taps[tap]))
            for tap, (grad, like, shape) in read.items()
        }
        if len(self.taps) == 1:
            return found[0]
        # a head that did not run in this step adds zeros of the width it had: the projection's inputs must stay where
        # they are in the row
        self._widths |= {tap: error.e_ND.shape[1] for tap, error in found.items()}
        lead = max((error.lead for error in found.values()), key=len)
        device, dtype = next((error.e_ND.device, wide(error.e_ND[:0]).dtype) for error in found.values())
        zeros = partial(torch.zeros, prod(lead), device=device, dtype=dtype)
        parts = [
            # heads may lie on several devices
            _per_token(found[tap], lead).to(device) if tap in found else zeros(self._width(tap))
            for tap in range(len(self.taps))
        ]
        return ErrorSignal(e_ND=torch.cat(parts, dim=1), tap=" and ".join(map(str, self.taps)), lead=lead)

    def _width(self, tap: int) -> int:
        if tap not in self._widths:
            raise MatchError(
                f"{self.taps[tap]} did not run in this forward, nor before, so the width of its error is not known; "
                "run every head of error_at in the first step"
            )
        return self._widths[tap]


def _per_token(error: ErrorSignal, lead: tuple[int, ...]) -> Tensor:
    if error.lead == lead:
        return wide(error.e_ND)
    if len(error.lead) == 1 and len(lead) == 2 and error.lead[0] == lead[0]:
        return (wide(error.e_ND) / lead[1]).repeat_interleave(lead[1], dim=0)
    raise MatchError(
        f"the error at {error.tap} has leading shape {error.lead}, another head's has {lead}: heads that are read "
        "together must have rows of the same samples or tokens"
    )
