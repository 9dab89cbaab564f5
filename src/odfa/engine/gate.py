"""The one autograd node that carries projected errors into an ordinary backward pass.

Blocks are cut apart in the forward pass. A gate at the tap then ties every block's output back to the loss, so that a
single `loss.backward()` visits head and blocks in one graph: distributed training, gradient accumulation, clipping and
hooks on parameters see nothing unusual.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Answer = Callable[[Tensor], Sequence[Tensor | None]]


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, answer: Answer, value: Tensor, *targets: Tensor) -> Tensor:
        ctx.answer = answer
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.answer(grad))


def gate(value: Tensor, targets: Sequence[Tensor], answer: Answer) -> Tensor:
    """`value`, tied to `targets`: in backward, `answer(dL/dvalue)` gives the gradients of value and of each target."""
    tied: Tensor = _Gate.apply(answer, value, *targets)  # type: ignore[no-untyped-call]
    return tied
