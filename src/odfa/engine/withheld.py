"""A run of a model whose head is left out: the head gets no rows, and what it would have read is kept for the loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from odfa.engine.rules import AbstractRule
from odfa.engine.tensors import eager, first_tensor
from odfa.error.by_rows import Ask
from odfa.errors import ConfigError, MatchError

_running: ContextVar["Withheld | None"] = ContextVar("the run whose head is left out", default=None)


class Withheld:
    """What one run of the model leaves for the loss."""

    def __init__(self, head: nn.Module) -> None:
        self.head = head
        self.h: Tensor | None = None
        """What the head would have read."""
        self.logits: Tensor | None = None
        """What came in place of its output: no rows, behind the gate if the error is read here."""
        self.ask: Ask | None = None
        """Who gets the error in backward; None: nobody."""

    @eager
    def before(self, head: nn.Module, args: tuple[Any, ...]) -> Any:
        """Let the head compute no row: the graph has its weights where they belong, and nothing is multiplied."""
        value = first_tensor(args)
        if value is None or value.ndim < 2 or len(args) != 1:
            raise MatchError(
                f"LinearCrossEntropy: expected that the model calls its head {type(head).__name__} with one tensor of "
                "two or more axes"
            )
        if self.h is not None:
            raise MatchError("LinearCrossEntropy: the head ran twice in one forward; compute the loss from its outputs")
        # a node of its own: where the head reads a block's output itself, the way from the loss to it must be one that
        # the trace finds between the block and the gate
        self.h = value.view_as(value)
        return (self.h[..., :0, :],)

    @eager
    def after(self, _head: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        """Keep what went on."""
        self.logits = output


def running() -> Withheld | None:
    """The run in progress whose head is left out, if there is one."""
    return _running.get()


@contextmanager
def withholding(head: nn.Module) -> Iterator[Withheld]:
    """Inside, a model that calls `head` gets no rows of it."""
    run = Withheld(head)
    # registered last, so that they see the input as a handle's hooks leave it, and the output behind its gate
    hooks = head.register_forward_pre_hook(run.before), head.register_forward_hook(run.after)
    token = _running.set(run)
    try:
        yield run
    finally:
        _running.reset(token)
        for hook in hooks:
            hook.remove()


def check_by_rows(rule: AbstractRule) -> None:
    """Refuse rules that read the error as a whole.

    Raises:
        ConfigError: the rule feeds blocks and does not say that it works row by row.
    """
    if rule.wiring.feeds and not rule.by_rows:
        raise ConfigError(
            f"rule {rule.name} reads the error as a whole, and LinearCrossEntropy makes some rows at a time; expected "
            "a rule that works row by row, such as RandomFeedback() or AlignedHead(), or a loss of the model's output"
        )
