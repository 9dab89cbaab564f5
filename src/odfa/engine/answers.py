"""What happens when backward arrives at a gate: errors in, signals out, for the wiring and the execution to send on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from odfa.engine.gates import gate
from odfa.engine.handle import Handle
from odfa.engine.record import Tie
from odfa.engine.step import Step
from odfa.engine.tensors import first_tensor, map_tensors, whole
from odfa.error import HeadError
from odfa.errors import MatchError


class Answers:
    """The backward half of the hooks. `waiting` is the step whose blocks reentrant checkpointing still has to run."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.waiting: Step | None = None

    def in_chunks(self, step: Step, tie: Tie, error: HeadError) -> None:
        """The backward of a loss that computes the head, before the gate's: the error, some rows at a time."""
        tie.error = error
        try:
            tie.signals = self.handle.answer(step, tie)
        finally:
            tie.error = None

    def at_tap(self, step: Step, tie: Tie, grad_y: Tensor | None) -> Sequence[Tensor | None]:
        """A gate's backward: dL/dy in; dL/dy for what lies behind the tap, and one gradient per target, out.

        Raises:
            MatchError: backward is asked for a graph of its own, or came by a loss that does not compute the head.
        """
        if torch.is_grad_enabled():
            raise MatchError("feedback has no second derivative; leave create_graph=True out, or use passthrough()")
        if step.exact and not step.execution.connects:  # data flow is followed to find the batch: no signals
            return [grad_y, *[None] * tie.targets]
        if tie.withheld:
            grad_y, signals, tie.signals = None, tie.signals, None  # the head's gradients are there already
            if signals is None:
                raise MatchError(
                    "a loss depends on the logits of a pass in which LinearCrossEntropy computes them; expected its own"
                )
            return [grad_y, *self._send(step, tie, grad_y, signals)]
        tie.error = None if grad_y is None else whole(grad_y)
        if not tie.calls and tie is not step.taps.ties[0]:
            return [grad_y]
        signals = self.handle.answer(step, tie)
        if tie is step.taps.ties[0]:  # the oldest gate is the last one that a backward pass comes to
            for answered in step.taps.ties:
                answered.error = None
        return [grad_y, *self._send(step, tie, grad_y, signals)]

    def _send(self, step: Step, tie: Tie, grad_y: Tensor | None, signals: list[Tensor]) -> list[Tensor | None]:
        step.wiring.keep(step, tie, signals)
        gradients = step.execution.feed(step, tie, grad_y, signals)
        self.waiting = step if step.execution.waiting else None
        return gradients

    def run_again(self, name: str, output: Any) -> Any:
        """Reentrant checkpointing has run a block again: its output, behind a gate that brings the signal."""
        step = self.waiting
        main = first_tensor(output)
        if main is None or not torch.is_grad_enabled() or self.handle.mode == "through":
            return None
        if not self.handle.rule.wiring.feeds:  # the first run had no graph to cut, so the cut is made in this one
            wiring = self.handle.new_wiring()
        elif step is None or not any(call.deferred and call.block == name for call in step.calls):
            return None
        else:
            wiring = step.wiring
            step.execution.waiting -= 1
            if not step.execution.waiting:
                self.waiting = None
        fed = gate(main, [], wiring.run_again(name))
        return map_tensors(output, lambda t: fed if t is main else t)
