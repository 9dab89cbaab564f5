"""The three autograd nodes that carry projected errors into one ordinary backward pass.

Blocks are cut apart in the forward pass. A gate at the tap then ties every block's output back to the loss, so that a
single `loss.backward()` visits head and blocks in one graph: distributed training, gradient accumulation, clipping and
hooks on parameters see nothing unusual.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Answer = Callable[[Tensor], Sequence[Tensor | None]]


class _Gate(torch.autograd.Function):
    """Identity on `value`; in backward, `answer(gradient)` gives the gradients of the targets."""

    @staticmethod
    def forward(ctx: Any, answer: Answer, value: Tensor, *targets: Tensor) -> Tensor:
        ctx.answer = answer
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, grad, *ctx.answer(grad))


class _Swap(torch.autograd.Function):
    """Identity on `value`; in backward, the incoming gradient is replaced by `answer(gradient)`."""

    @staticmethod
    def forward(ctx: Any, answer: Callable[[Tensor], Tensor | None], value: Tensor) -> Tensor:
        ctx.answer = answer
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, ctx.answer(grad))


class _Fanout(torch.autograd.Function):
    """Identity on `value`; in backward, `answer(gradient)` gives the gradients of value and targets alike."""

    @staticmethod
    def forward(ctx: Any, answer: Answer, value: Tensor, *targets: Tensor) -> Tensor:
        ctx.answer = answer
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.answer(grad))


def gate(value: Tensor, targets: Sequence[Tensor], answer: Answer) -> Tensor:
    """`value`, tied to `targets`: dL/dvalue passes on unchanged and `answer` turns it into the targets' gradients."""
    return _apply(_Gate, answer, value, *targets)


def swap(value: Tensor, answer: Callable[[Tensor], Tensor | None]) -> Tensor:
    """`value` whose gradient is whatever `answer` makes of the incoming one."""
    return _apply(_Swap, answer, value)


def fanout(value: Tensor, targets: Sequence[Tensor], answer: Answer) -> Tensor:
    """`value` whose gradient goes, by `answer`, to its own source and to every target."""
    return _apply(_Fanout, answer, value, *targets)


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return result
