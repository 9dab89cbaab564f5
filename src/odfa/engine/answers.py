"""What happens when backward arrives at a gate: errors in, one gradient per block out."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from odfa.engine.gate import gate
from odfa.engine.handle import Handle
from odfa.engine.step import Step, Tie
from odfa.engine.stream import Replay
from odfa.engine.tensors import first_tensor, map_tensors, whole
from odfa.errors import MatchError


class Answers:
    """The backward half of the hooks. `waiting` is the step whose blocks reentrant checkpointing still has to run."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.waiting: Step | None = None
        self.replay: Replay | None = None

    def at_tap(self, step: Step, tie: Tie, grad_y: Tensor | None) -> Sequence[Tensor | None]:
        """A gate's backward: dL/dy in; dL/dy for what lies behind the tap, and one gradient per target, out."""
        if torch.is_grad_enabled():
            raise MatchError("feedback has no second derivative; leave create_graph=True out, or use passthrough()")
        if step.exact and not step.measuring:  # looking for the batch
            return [grad_y] + [None] * len(tie.calls)
        tie.error = None if grad_y is None else whole(grad_y)
        if not tie.calls and tie is not step.ties[0]:
            return [grad_y]
        signals = self.handle.answer(step, tie)
        if tie is step.ties[0]:  # the oldest gate is the last one that a backward pass comes to
            for answered in step.ties:
                answered.error = None
        if self.handle.rule.wiring == "direct" and (step.keeps_signals or step.measuring):
            step.signals |= dict(zip(tie.calls, signals, strict=True))
        if step.measuring:
            self.handle.measured(grad_y, signals)
            step.exact = True
            return [grad_y] + [None] * (1 if self.handle.rule.wiring == "residual" else len(tie.calls))
        if step.replay is not None and self.handle.rule.wiring == "direct":
            self.learn(step, signals)
            return [grad_y]
        return [grad_y, *self._to_targets(step, tie, signals)]

    def _to_targets(self, step: Step, tie: Tie, signals: list[Tensor]) -> list[Tensor | None]:
        calls = [step.calls[number] for number in tie.calls]
        if step.replay is None:  # otherwise the blocks run again on our own call
            step.waiting += sum(call.deferred for call in calls)
            self.waiting = step if step.waiting else None
        if self.handle.rule.wiring == "residual":
            step.delta = None
            return [signals[0].reshape(step.head_shape).to(step.head_dtype)]
        gradients: list[Tensor | None] = []
        for call, signal in zip(calls, signals, strict=True):
            (step.deferred.setdefault(call.block, []) if call.deferred else gradients).append(signal.to(call.dtype))
        return gradients

    def instead(self, step: Step, call: int, natural: Tensor) -> Tensor | None:
        """What goes along a residual edge around a block: the block's signal.

        Behind the last block of a residual stream the signal is what arrives there by itself.
        """
        if self.handle.rule.wiring == "none":
            return None
        if self.handle.rule.wiring == "residual":
            if call == len(step.calls) - 1:
                return natural
            signal = step.delta
        else:
            signal = step.signals.get(call)
        if signal is None:
            raise MatchError(f"the residual around block {step.calls[call].block} was reached before its signal")
        return signal.to(natural.dtype)

    def fan_out(self, step: Step, number: int, num_targets: int, delta: Tensor) -> Sequence[Tensor | None]:
        """The last block's output received `delta`; an earlier call of a shared last block passes nothing on."""
        if step.exact:
            return [delta] + [None] * (num_targets - 1)
        if number != step.fans:
            return [None] * num_targets
        step.delta = delta if step.keeps_signals else None
        return [delta] * num_targets

    def second_run(self, step: Step, number: int, delta: Tensor) -> list[Tensor | None]:
        """Streaming, residual wiring: the last block's output received `delta`, and every block learns from it."""
        if number == step.fans:
            self.learn(step, [delta] * len(step.calls))
        return [None]

    def learn(self, step: Step, signals: Sequence[Tensor]) -> None:
        """Streaming: run the model again, block by block."""
        assert step.replay is not None
        self.replay = step.replay
        try:
            self.replay.run(self.handle.model, signals)
        finally:
            self.replay = None

    def again(self, name: str, output: Any) -> Any:
        """Reentrant checkpointing runs a block again: its output, behind a gate that brings the signal."""
        step, wiring = self.waiting, self.handle.rule.wiring
        main = first_tensor(output)
        if main is None or not torch.is_grad_enabled() or self.handle.mode == "through":
            return None
        if wiring == "none":  # nothing has been cut yet
            fed = gate(main, [], partial(_replace, None))
        elif step is None or not any(call.deferred and call.block == name for call in step.calls):
            return None
        else:
            step.waiting -= 1
            if not step.waiting:
                self.waiting = None
            broadcast = wiring == "residual"
            signal = partial(_broadcast, step) if broadcast else partial(_replace, step.deferred[name].pop())
            fed = gate(main, [], signal)
        return map_tensors(output, lambda t: fed if t is main else t)


def _broadcast(step: Step, delta: Tensor) -> list[Tensor]:
    """The block that is recomputed first, the last one, received the signal for all."""
    if step.delta is None:
        step.delta = delta
    return [step.delta]


def _replace(signal: Tensor | None, _grad: Tensor) -> list[Tensor | None]:
    return [signal]
