"""The hooks of a DFA handle: they cut the graph at every block and tie it together again at the tap."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from odfa.engine import lean
from odfa.engine.gate import gate
from odfa.engine.rules import Call
from odfa.engine.step import Cut, Step
from odfa.engine.tensors import eager, first_tensor, in_backward, map_tensors
from odfa.errors import MatchError

if TYPE_CHECKING:
    from odfa.engine.dfa import DFA


class Hooks:
    """Owns every hook of one handle. `step` is the forward pass in progress, None outside of one.

    Forward: each block's output is replaced by a leaf without history. At the tap one gate node takes the outputs'
    histories as inputs, and its backward answers dL/dy with one signal per block. In residual wiring the gate feeds the
    head's input instead, and a fan-out node at the last block hands what arrives there to all blocks.
    """

    def __init__(self, handle: "DFA") -> None:
        self.handle = handle
        self.step: Step | None = None
        self.answering: Step | None = None
        self.recomputations: dict[str, list[lean.Recomputation]] = {}
        self._removable: list[RemovableHandle] = []
        self._gate_node: object = None

    def attach(self, *, recompute: bool) -> None:
        """Register; the order matters where one module is block, tap and root at once."""
        handle, keep = self.handle, self._removable.append
        keep(handle.model.register_forward_pre_hook(self.before_model))
        for name, block in handle.blocks.items():
            if block is handle.tap.module:
                continue
            if recompute:
                keep(block.register_forward_pre_hook(partial(self.before_block, name), with_kwargs=True))
            keep(block.register_forward_hook(partial(self.after_block, name), always_call=recompute))
        if handle.rule.wiring == "residual":
            keep(handle.tap.module.register_forward_pre_hook(self.before_head))
        if handle.tap.side == "input":
            keep(handle.tap.module.register_forward_pre_hook(self.before_tap))
        else:
            keep(handle.tap.module.register_forward_hook(self.after_tap))
        keep(handle.model.register_forward_hook(self.after_model, always_call=True))

    def remove(self) -> None:
        """Remove exactly these hooks."""
        for removable in self._removable:
            removable.remove()
        self._removable.clear()

    @eager
    def before_model(self, _model: nn.Module, _args: Any) -> None:
        """Open a fresh record; whatever a forward without backward left behind is dropped."""
        recording = torch.is_grad_enabled() and self.handle.mode != "through"
        self.step = Step() if recording else None

    @eager
    def after_model(self, _model: nn.Module, _args: Any, output: Any) -> None:
        """Close the record, also when the forward failed; refuse a pass whose blocks would silently get nothing."""
        step, self.step = self.step, None
        node, self._gate_node = self._gate_node, None
        if node is not None:
            self.handle.note_ahead(output, node)
        if step is None or output is None or self.handle.rule.wiring == "none":
            return
        if not step.gated:
            raise MatchError(
                f"the error is read at {self.handle.tap}, which did not run in this forward; choose error_at"
            )
        if step.sources:
            raise MatchError(
                f"a block ran after {self.handle.tap}, where the error is read; choose error_at behind all blocks"
            )

    @eager
    def before_block(self, name: str, block: nn.Module, args: Any, kwargs: Any) -> None:
        """With recompute: keep the block's inputs only."""
        if self.step is not None and torch.is_grad_enabled():
            if kwargs.get("past_key_values") is not None:
                raise MatchError(
                    f"block {name} writes to a key-value cache, which a second run would change; set use_cache=False"
                )
            self.recomputations.setdefault(name, []).append(lean.begin(block, args, kwargs))

    @eager
    def after_block(self, name: str, _block: nn.Module, _args: Any, output: Any) -> Any:
        """Cut the graph at a block's output."""
        if running := self.recomputations.get(name):
            lean.end(running.pop())
        if output is None or self.handle.mode == "through":
            return None
        if self.step is None:
            return self._outside(name, output)
        main = first_tensor(output)
        if main is None:
            raise MatchError(f"block {name} returned {type(output).__name__} without a floating-point tensor")
        self.step.ran += 1
        if not torch.is_grad_enabled():
            self._defer(self.step, name, main)
            return None
        leaf = self._cut(self.step, name, main)
        return map_tensors(output, lambda t: leaf if t is main else self._cut_side(self.step, t))

    def _outside(self, name: str, output: Any) -> Any:
        """A block ran without its model: autograd recomputes it, or somebody called it directly."""
        if in_backward():
            return self._recomputed(name, output)
        if torch.is_grad_enabled():
            raise MatchError(
                f"block {name} ran outside the model that DFA is attached to, so no error would reach it; "
                "call that model, attach to the part that you call, or wrap the call in torch.no_grad()"
            )
        return None

    def _cut(self, step: Step, name: str, main: Tensor) -> Tensor:
        wiring = self.handle.rule.wiring
        leaf = main.detach().requires_grad_(_needs_gradient(main))
        if wiring == "none" or not (main.requires_grad or step.sources):
            return leaf
        measuring = self.handle.mode == "measure"
        if wiring == "residual":
            different = next((s.shape for s in step.sources if s.shape != main.shape), None)
            if different is not None:
                raise MatchError(
                    f"rule {self.handle.rule.name} sends one signal along a residual stream, but block {name} returned "
                    f"{tuple(main.shape)} after {tuple(different)}; use RandomFeedback()"
                )
        step.calls.append(Call(name, tuple(main.shape), main.dtype, False))
        earlier = list(step.sources)
        step.sources.append(main)
        if wiring == "residual" and name == self.handle.last_block and not measuring:
            step.fans += 1
            return gate(main, earlier, partial(_fan_out, step, step.fans, len(step.sources)))
        if measuring:
            step.cuts.append(Cut(main, leaf.requires_grad_(), name))
        return leaf

    def _cut_side(self, step: Step | None, tensor: Tensor) -> Tensor:
        """Side outputs (skip connections, position biases) are cut too: no gradient crosses a block by another door.

        They keep asking for a gradient, because torch picks attention kernels by it and values must not change.
        """
        if not tensor.requires_grad:
            return tensor
        leaf = tensor.detach().requires_grad_()
        if self.handle.mode == "measure" and step is not None:
            step.cuts.append(Cut(tensor, leaf, None))
        return leaf

    @eager
    def before_head(self, _head: nn.Module, args: tuple[Any, ...]) -> Any:
        """Residual wiring: the head's exact gradient stays with the head's weights."""
        if self.step is None or not torch.is_grad_enabled():
            return None
        value = first_tensor(args)
        if value is None:
            raise MatchError("the head was called without a positional tensor; use RandomFeedback() for this model")
        self.step.head_input = value
        leaf = value.detach()
        if self.handle.mode == "measure":
            self.step.cuts.append(Cut(value, leaf.requires_grad_(), None))
        return map_tensors(args, lambda t: leaf if t is value else t)

    @eager
    def before_tap(self, _module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Read the error at a module's input."""
        return self._tie(args)

    @eager
    def after_tap(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        """Read the error at a module's output."""
        return self._tie(output)

    def _tie(self, value: Any) -> Any:
        step, tap, wiring = self.step, self.handle.tap, self.handle.rule.wiring
        if step is None or not torch.is_grad_enabled():
            return None
        main = first_tensor(value)
        if main is None:
            raise MatchError(f"the error cannot be read at {tap}: no floating-point tensor there; choose error_at")
        if wiring == "none":
            self.handle.note_membership(step, main)
            return None
        if step.gated:
            raise MatchError(
                f"{tap} ran twice in one forward, so there are two errors; read it elsewhere with error_at"
            )
        if not step.ran:
            raise MatchError(f"{tap} ran before any block; choose error_at behind the blocks")
        if wiring == "residual":
            ran_last = step.calls[-1].block if step.calls else self.handle.last_block
            if ran_last != self.handle.last_block:
                raise MatchError(
                    f"block {ran_last} ran last, expected {self.handle.last_block}; list blocks in running order"
                )
        targets = [step.head_input] if wiring == "residual" and step.head_input is not None else step.sources
        noted = self.handle.note_membership(step, main)
        if self.handle.mode == "measure":
            targets = []
        step.sources, step.gated = [], True
        tied = gate(main, targets, partial(self._answer, step))
        self._gate_node = tied.grad_fn if noted else None
        return map_tensors(value, lambda t: tied if t is main else t)

    def _answer(self, step: Step, grad_y: Tensor) -> Sequence[Tensor | None]:
        """The gate's backward: dL/dy in; dL/dy for what lies behind the tap, and one gradient per target, out."""
        if self.handle.mode == "measure":
            self.handle.measured(step, grad_y)
            return [grad_y]
        signals = self.handle.answer(step, grad_y)
        step.waiting = sum(call.deferred for call in step.calls)
        self.answering = step if step.waiting else None
        if self.handle.rule.wiring == "residual":
            assert step.head_input is not None
            value, step.head_input = step.head_input, None
            return [grad_y, signals[0].reshape(value.shape).to(value.dtype)]
        gradients: list[Tensor | None] = [grad_y]
        for call, signal in zip(step.calls, signals, strict=True):
            (step.deferred.setdefault(call.block, []) if call.deferred else gradients).append(signal.to(call.dtype))
        return gradients

    def _defer(self, step: Step, name: str, main: Tensor) -> None:
        """No graph inside a training forward: reentrant checkpointing, which runs the block again in backward."""
        if self.handle.mode == "measure":
            raise MatchError("alignment cannot be measured through reentrant checkpointing; use use_reentrant=False")
        if self.handle.rule.wiring != "none":
            step.calls.append(Call(name, tuple(main.shape), main.dtype, True))

    def _recomputed(self, name: str, output: Any) -> Any:
        step = self.answering
        main = first_tensor(output)
        if main is None or not torch.is_grad_enabled() or self.handle.mode == "through":
            return None
        if self.handle.rule.wiring == "none":  # inside reentrant checkpointing nothing has been cut yet
            stopped = gate(main, [], partial(_replace, None))
            return map_tensors(output, lambda t: stopped if t is main else t)
        if step is None or not any(call.deferred and call.block == name for call in step.calls):
            return None
        step.waiting -= 1
        if not step.waiting:
            self.answering = None
        if self.handle.rule.wiring == "residual":
            fed = gate(main, [], partial(_broadcast, step))
        else:
            fed = gate(main, [], partial(_replace, step.deferred[name].pop()))
        return map_tensors(output, lambda t: fed if t is main else t)


def _needs_gradient(main: Tensor) -> bool:
    """A leaf without gradient saves the next block's input gradient, but not everything in torch bears it.

    Reentrant checkpointing builds a graph only for inputs that ask for a gradient, and GroupNorm's backward (torch
    2.13, CPU) crashes on channels-last inputs that do not.
    """
    channels_last = main.ndim > 3 and not main.is_contiguous()
    return channels_last or type(main.grad_fn).__name__ == "CheckpointFunctionBackward"


def _fan_out(step: Step, number: int, num_targets: int, delta: Tensor) -> Sequence[Tensor | None]:
    """The last block's output received `delta`; an earlier call of a shared last block passes nothing on."""
    return [delta if number == step.fans else None] * num_targets


def _broadcast(step: Step, delta: Tensor) -> list[Tensor]:
    """The block that is recomputed first, the last one, received the signal for all."""
    if step.broadcast is None:
        step.broadcast = delta
    return [step.broadcast]


def _replace(signal: Tensor | None, _grad: Tensor) -> list[Tensor | None]:
    return [signal]
