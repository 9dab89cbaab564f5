"""The autograd nodes of ours: they carry projected errors into an ordinary backward pass, and mark where blocks end.

Blocks are cut apart in the forward pass. A gate at the tap then ties every block's output back to the loss, so that a
single `loss.backward()` visits head and blocks in one graph: distributed training, gradient accumulation, clipping and
hooks on parameters see nothing unusual.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Answer = Callable[[Tensor], Sequence[Tensor | None]]
AnswerMaybe = Callable[[Tensor | None], Sequence[Tensor | None]]


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, answer: Answer, value: Tensor, *targets: Tensor) -> Tensor:
        ctx.answer = answer
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.answer(grad))


class _Mark(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, answer: AnswerMaybe, value: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.answer = answer
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, *ctx.answer(grad))


class _Chained(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, answer: AnswerMaybe, value: Tensor, earlier: Tensor | None, *targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.answer = answer
        return value.detach(), value.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _link: Tensor | None) -> tuple[Tensor | None, ...]:
        at_value, *at_targets = ctx.answer(grad)
        return (None, at_value, None, *at_targets)


def gate(value: Tensor, targets: Sequence[Tensor], answer: Answer) -> Tensor:
    """`value`, tied to `targets`: in backward, `answer(dL/dvalue)` gives the gradients of value and of each target."""
    tied: Tensor = _Gate.apply(answer, value, *targets)  # type: ignore[no-untyped-call]
    return tied


def mark(value: Tensor, answer: AnswerMaybe) -> Tensor:
    """`value` behind a node that can be found in the graph; `answer` gets None where no gradient arrives."""
    marked: Tensor = _Mark.apply(answer, value)  # type: ignore[no-untyped-call]
    return marked


def chained_gate(
    value: Tensor, earlier: Tensor | None, targets: Sequence[Tensor], answer: AnswerMaybe
) -> tuple[Tensor, Tensor]:
    """A gate for one of several taps, and the link that the next one takes as `earlier`.

    Backward visits the gates from the newest to the oldest, also those whose value has no part in the loss.
    """
    tied: tuple[Tensor, Tensor] = _Chained.apply(answer, value, earlier, *targets)  # type: ignore[no-untyped-call]
    return tied
