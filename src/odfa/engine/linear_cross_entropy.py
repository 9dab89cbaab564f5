"""The loss of a wide head, such as that of a vocabulary, in pieces: all of its logits are never in memory at once."""

from typing import Any

import torch
from torch import Tensor, nn

from odfa.engine.attached import handle_of
from odfa.engine.tensors import is_spread, named_tensors
from odfa.engine.withheld import Withheld, check_by_rows, withholding
from odfa.error import HeadSums, Reduction, head_loss
from odfa.errors import ConfigError, MatchError


class LinearCrossEntropy(nn.Module):
    """Runs a model without its head and computes the head together with the cross-entropy, `rows` rows at a time.

        loss = mean over rows n with y_n != ignore_index of -log softmax(W h_n + b)[y_n]

    Logits, their error e = dL/dlogits and no more than `rows` rows of both exist at any time, in forward and in
    backward, which computes them once more. A `DFA` attached to the model reads e as it is made: rules that work row by
    row (`by_rows` in their class) get the same signals as from the whole error. Gradients are the same to rounding;
    encoders that draw random numbers draw others. Without gradients it is the loss alone.

    Args:
        model: what is called; its output must hold the head's output as the head returned it, which then has no rows.
        head: the module in it that makes the logits: an `nn.Linear`, or a `Conv1D` of the transformers library.
        rows: the most rows of logits at a time.
        ignore_index: the target of rows that do not count.

    Raises:
        ConfigError: `rows` is no positive number, or the rule of the attached `DFA` reads the error as a whole.
        MatchError: the head is of another kind, or not in the model.

    Example:
        >>> model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 50))
        >>> tokens = torch.randint(50, (2, 6))
        >>> loss_of = LinearCrossEntropy(model, model[-1], rows=4)
        >>> loss_of(tokens, tokens).backward()

    Source: Hsu et al., Liger Kernel, arXiv 2410.10989; Wijmans et al., Cut Your Losses, arXiv 2411.09009.
    """

    def __init__(self, model: nn.Module, head: nn.Module, *, rows: int = 1024, ignore_index: int = -100) -> None:
        super().__init__()
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            raise ConfigError(f"rows: expected a positive number of rows, got {rows!r}")
        if not any(module is head for module in model.modules()):
            raise MatchError(f"head: expected a module of the model, such as model.lm_head, got {type(head).__name__}")
        self.transposed = _is_transposed(head)
        self.model, self.rows, self.ignore_index = model, rows, ignore_index
        self._head = [head]  # a list, so that it is not registered twice
        self.training = model.training
        handles = (handle_of(module) for module in model.modules())
        for handle in handles:
            if handle is not None:
                check_by_rows(handle.rule)

    def forward(self, targets: Tensor, *args: Any, reduction: Reduction = "mean", **kwargs: Any) -> Tensor:
        """The loss of `model(*args, **kwargs)`, a scalar in float32 or better.

        Args:
            targets: a class for each row of the head's output, in its leading shape, such as (B, T); not shifted.
            reduction: the mean, or the sum.

        Raises:
            MatchError: the model gets labels, the head did not run once on one tensor, its output does not come out as
                it is, the targets have another shape, its weight is spread over processes, or the error is read behind
                it.
        """
        if kwargs.get("labels") is not None:
            raise MatchError(
                "labels: expected none, as LinearCrossEntropy computes the loss; hand them over as its targets, shifted"
            )
        head = self._head[0]
        with withholding(head) as run:
            output = self.model(*args, **kwargs)
        if run.h is None or run.logits is None:
            raise MatchError("LinearCrossEntropy: the head did not run in this forward; let the model call it")
        # what a model does to its logits (a cap, a scale, a mask) would be left out of the loss
        if not any(tensor is run.logits for _, tensor in named_tensors(output)):
            raise MatchError(
                "LinearCrossEntropy: the model does not return what its head returns, so its loss cannot be computed "
                "behind the head; compute it from the model's output"
            )
        return head_loss(
            self._sums(run, targets, head), reduction, ask=run.ask, gate=None if run.ask is None else run.logits
        )

    def _sums(self, run: Withheld, targets: Tensor, head: nn.Module) -> HeadSums:
        weight: Tensor = head.weight  # type: ignore[assignment]
        bias: Tensor | None = head.bias  # type: ignore[assignment]
        assert run.h is not None
        if is_spread(weight):
            raise MatchError(
                "LinearCrossEntropy: expected the head's whole weight, got a DTensor, which is spread over processes; "
                "compute the loss from the model's output"
            )
        if targets.shape != run.h.shape[:-1]:
            raise MatchError(
                f"targets: expected {tuple(run.h.shape[:-1])}, one class for each row of the head's output, got "
                f"{tuple(targets.shape)}"
            )
        return HeadSums(
            h_NK=run.h.reshape(-1, run.h.shape[-1]),
            w_VK=weight.T if self.transposed else weight,
            b_V=bias,
            target_N=targets.reshape(-1),
            rows=self.rows,
            ignored=self.ignore_index,
            dtype=_of_products(run.h),
        )


def _is_transposed(head: nn.Module) -> bool:
    """Whether the weight is inputs x outputs.

    Raises:
        MatchError: the head is no linear layer, or more than one.
    """
    if isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward:
        return False
    if type(head).__name__ == "Conv1D" and isinstance(getattr(head, "weight", None), nn.Parameter):
        return True
    raise MatchError(
        f"head: expected nn.Linear or the Conv1D of transformers, whose product can be made in pieces, got "
        f"{type(head).__name__}; compute the loss from the model's output"
    )


def _of_products(h: Tensor) -> torch.dtype:
    """What products of `h` are computed in here: its own type, or that of autocast."""
    kind = h.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return h.dtype
