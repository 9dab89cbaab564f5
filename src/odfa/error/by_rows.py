"""Cross-entropy behind a linear head, some rows at a time: logits and their error never stand in memory as a whole.

Shape letters: `N` rows of the error, `n` those of them that are there at a time · `K` width of the head's input ·
`V` vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from odfa import devices

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True, kw_only=True)
class HeadSums:
    """What a head computes: logits_nV = h_nK W_VK^T + b_V, at most `rows` rows at a time."""

    h_NK: Tensor
    w_VK: Tensor
    b_V: Tensor | None
    target_N: Tensor
    """Row → number of its class, or `ignored`."""
    rows: int
    ignored: int
    dtype: torch.dtype
    """Of the products."""

    @property
    def parts(self) -> Iterator[slice]:
        """Places of the rows that are there at a time."""
        return (slice(start, start + self.rows) for start in range(0, len(self.h_NK), self.rows))

    @property
    def wide(self) -> torch.dtype:
        """Of what is summed over a row: float32, or float64 where the products are."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def told(self) -> torch.dtype:
        """Of the error's rows: as precise as the products where the device multiplies these so, wide elsewhere."""
        return self.dtype if devices.multiplies(self.dtype, self.h_NK.device) else self.wide

    @property
    def counts_N(self) -> Tensor:
        """Whether a row counts."""
        return self.target_N != self.ignored

    @property
    def class_N(self) -> Tensor:
        """The targets, 0 where a row does not count."""
        return torch.where(self.counts_N, self.target_N, 0)

    def logits(self, part: slice, w_VK: Tensor, b_V: Tensor | None) -> Tensor:
        """logits_nV of some rows, wide, in memory of their own."""
        return torch.nn.functional.linear(self.h_NK[part].to(self.dtype), w_VK, b_V).to(self.wide)

    def cast(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the type of the products."""
        return self.w_VK.to(self.dtype), None if self.b_V is None else self.b_V.to(self.dtype)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each row, 0 where it does not count, and the logarithm of the sum over its exponentials."""
        weights, log_N = self.cast(), self.h_NK.new_empty(len(self.h_NK), dtype=self.wide)
        loss_N, class_N = torch.empty_like(log_N), self.class_N
        for part in self.parts:
            logits_nV = self.logits(part, *weights)
            top_n1, own_n1 = logits_nV.amax(1, keepdim=True), logits_nV.gather(1, class_N[part].unsqueeze(1))
            log_n1 = logits_nV.sub_(top_n1).exp_().sum(1, keepdim=True).log_() + top_n1
            log_N[part], loss_N[part] = log_n1[:, 0], (log_n1 - own_n1)[:, 0]
        return loss_N.mul_(self.counts_N), log_N


class HeadError:
    """dL/dlogits of a cross-entropy, made some rows at a time; the head's gradients are summed up on the way.

    Each run through `chunks` computes the logits again.

    Args:
        sums: what the head computes.
        log_N: what `HeadSums.losses` gave.
        scale_N: dL/d(loss of a row).
        wanted: whether the gradients of h, W and b are asked for.
    """

    def __init__(self, sums: HeadSums, log_N: Tensor, scale_N: Tensor, wanted: tuple[bool, bool, bool]) -> None:
        self.sums, self._log_N, self._scale_N, self._wanted = sums, log_N, scale_N, wanted
        self._gradients: tuple[Tensor | None, Tensor | None, Tensor | None] | None = None

    @property
    def like(self) -> Tensor:
        """No rows, of the error's width, dtype and device."""
        return self._log_N.new_empty(0, len(self.sums.w_VK), dtype=self.sums.told)

    def chunks(self) -> Iterator[Tensor]:
        """e_nV, in order; rows that do not count are zero."""
        weights, class_N = self.sums.cast(), self.sums.class_N
        gathered = None if self._gradients is not None else _Gathered(self.sums, self._wanted)
        for part in self.sums.parts:
            e_nV = self.sums.logits(part, *weights).sub_(self._log_N[part, None]).exp_()
            e_nV.scatter_add_(1, class_N[part, None], e_nV.new_full((), -1.0).expand(len(e_nV), 1))
            e_nV.mul_(self._scale_N[part, None])
            if gathered is not None:
                e_nV = gathered.add(part, e_nV, weights[0])
            yield e_nV.to(self.sums.told)
            del e_nV
        if gathered is not None and self._gradients is None:
            self._gradients = gathered.gradients()

    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of h_NK, W_VK and b_V; None where it is not asked for. Nothing is computed if somebody has been through."""
        if self._gradients is None:
            for e_nV in self.chunks():
                del e_nV
        assert self._gradients is not None
        return self._gradients


class _Gathered:
    """The gradients of h, W and b, summed up over the rows so far."""

    def __init__(self, sums: HeadSums, wanted: tuple[bool, bool, bool]) -> None:
        of_h, of_w, of_b = wanted
        self.sums, self._first = sums, True
        several = len(sums.h_NK) > sums.rows
        # sums over many parts would lose their digits in half precision
        dtype = torch.promote_types(sums.w_VK.dtype, sums.wide) if several else sums.w_VK.dtype
        self._h_NK = torch.empty_like(sums.h_NK) if of_h else None
        self._w_VK = torch.zeros_like(sums.w_VK, dtype=dtype) if of_w else None
        self._b_V = None if sums.b_V is None or not of_b else torch.zeros_like(sums.b_V, dtype=sums.wide)

    def add(self, part: slice, e_nV: Tensor, w_VK: Tensor) -> Tensor:
        """Add some rows; returns them as precise as the products are."""
        narrow_nV, w_sum_VK = e_nV.to(self.sums.dtype), self._w_VK
        if self._h_NK is not None:
            self._h_NK[part] = narrow_nV @ w_VK
        if self._b_V is not None:
            self._b_V += narrow_nV.sum(0, dtype=self.sums.wide)
        if w_sum_VK is not None:
            h_nK = self.sums.h_NK[part].to(self.sums.dtype)
            if w_sum_VK.dtype == self.sums.dtype:
                w_sum_VK.addmm_(narrow_nV.T, h_nK)
            else:
                w_sum_VK += narrow_nV.T @ h_nK
        return narrow_nV if narrow_nV.dtype == self.sums.told else narrow_nV.to(self.sums.wide)

    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """In the types of what they are gradients of."""
        w_VK = None if self._w_VK is None else self._w_VK.to(self.sums.w_VK.dtype)
        b_V = None if self._b_V is None or self.sums.b_V is None else self._b_V.to(self.sums.b_V.dtype)
        return self._h_NK, w_VK, b_V


Ask = Callable[[HeadError], None]


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sums: HeadSums, reduction: Reduction, ask: Ask | None,
        gate: Tensor | None, h_NK: Tensor, w_VK: Tensor, b_V: Tensor | None,
    ) -> Tensor:  # fmt: skip
        with _as_written(h_NK.device):
            loss_N, log_N = sums.losses()
        scale = sums.counts_N.sum().to(log_N.dtype).reciprocal() if reduction == "mean" else log_N.new_ones(())
        ctx.save_for_backward(h_NK, w_VK, b_V, sums.target_N, log_N, scale)
        ctx.form, ctx.ask = (sums.rows, sums.ignored, sums.dtype), ask
        ctx.at_gate = None if gate is None else gate.detach()  # no elements
        return loss_N.sum() * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h_NK, w_VK, b_V, target_N, log_N, scale = ctx.saved_tensors
        rows, ignored, dtype = ctx.form
        sums = HeadSums(
            h_NK=h_NK, w_VK=w_VK, b_V=b_V, target_N=target_N, rows=rows, ignored=ignored, dtype=dtype
        )  # fmt: skip
        error = HeadError(sums, log_N, sums.counts_N * (grad * scale), tuple(ctx.needs_input_grad[4:7]))
        with _as_written(h_NK.device):
            if ctx.ask is not None:
                ctx.ask(error)
            gradients = error.gradients()
        at_gate = None if ctx.at_gate is None else torch.zeros_like(ctx.at_gate)
        return (None, None, None, at_gate, *gradients)


def _as_written(device: torch.device) -> AbstractContextManager[object]:
    """Without autocast, as types are said here."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def head_loss(sums: HeadSums, reduction: Reduction, *, ask: Ask | None = None, gate: Tensor | None = None) -> Tensor:
    """Mean or sum of the cross-entropies of the rows that count, a scalar; the mean of none is NaN.

    Backward computes the logits again and goes through their error once: one more product with the head than with all
    logits in memory.

    Args:
        ask: gets the error in backward, before the gradients are handed on; going through it costs nothing then.
        gate: a tensor without elements; backward comes to it after `ask`.
    """
    tensors = gate, sums.h_NK, sums.w_VK, sums.b_V
    loss: Tensor = _HeadLoss.apply(sums, reduction, ask, *tensors)  # type: ignore[no-untyped-call]
    return loss
