"""The hooks of a DFA handle: they cut the graph at every block and tie it together again at the tap."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from odfa.engine import lean
from odfa.engine.gate import gate
from odfa.engine.handle import Handle, Recompute
from odfa.engine.norms import NormReaders
from odfa.engine.rules import Call
from odfa.engine.step import Cut, Step
from odfa.engine.stream import Replay
from odfa.engine.tensors import eager, first_tensor, in_backward, map_tensors
from odfa.errors import MatchError


class Hooks:
    """Owns every hook of one handle. The newest of `steps` is the forward pass in progress, None if it is not recorded.

    Forward: each block's output is replaced by a leaf without history. At the tap one gate node takes the outputs'
    histories as inputs, and its backward answers dL/dy with one signal per block. In residual wiring the gate feeds the
    head's input instead, and a gate at the last block hands what arrives there to all blocks.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.steps: list[Step | None] = []
        self.answering: Step | None = None
        self.replay: Replay | None = None
        self._norms = NormReaders(handle.blocks.values(), without=set(handle.linears.layers.values()))
        self._removable: list[RemovableHandle] = []

    @property
    def step(self) -> Step | None:
        """The record of the forward pass in progress."""
        return self.steps[-1] if self.steps else None

    def attach(self, *, recompute: Recompute) -> None:
        """Register; the order matters where one module is block, tap and root at once."""
        handle, keep = self.handle, self._removable.append
        keep(handle.model.register_forward_pre_hook(self.before_model, with_kwargs=True))
        for name, block in handle.blocks.items():
            if block is handle.tap.module:
                continue
            if recompute:  # before the user's hooks, which run again with the block
                before = partial(self.before_block, name)
                keep(block.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
            keep(block.register_forward_hook(partial(self.after_block, name), always_call=bool(recompute)))
        for module in handle.branches.values():
            keep(module.register_forward_pre_hook(self.before_branch, prepend=True))
        self._removable += self._norms.attach() + handle.linears.attach()
        if handle.rule.wiring == "residual":
            keep(handle.tap.module.register_forward_pre_hook(self.before_head))
        if handle.tap.side == "input":
            keep(handle.tap.module.register_forward_pre_hook(self.before_tap))
        else:
            keep(handle.tap.module.register_forward_hook(self.after_tap))
        keep(handle.model.register_forward_hook(self.after_model, always_call=True))
        if "torch._dynamo" in sys.modules:  # code compiled before would go on without the hooks
            torch.compiler.reset()

    def remove(self) -> None:
        """Remove exactly these hooks."""
        for removable in self._removable:
            removable.remove()
        self._removable.clear()

    @eager
    def before_model(self, _model: nn.Module, args: Any, kwargs: Any) -> None:
        """Open a fresh record; what an interrupted forward (Ctrl-C) left behind is closed first."""
        if self.replay is not None:
            self.steps.append(None)
            return
        recording = torch.is_grad_enabled() and self.handle.mode != "through"
        if recording:
            self._norms.begin()
            self.handle.linears.begin()
            for left in reversed(self.steps):
                if left is not None:
                    left.close()
            self.steps.clear()
        step = Step(measuring=self.handle.mode == "measure") if recording else None
        if step is not None and self.handle.recompute == "stream" and not step.measuring:
            step.replay = Replay(args, kwargs)
        self.steps.append(step)

    @eager
    def after_model(self, _model: nn.Module, _args: Any, output: Any) -> None:
        """Close the record, also when the forward failed; refuse a pass whose blocks would silently get nothing."""
        step = self.steps.pop() if self.steps else None
        if step is None:
            return
        if step.gate_node is not None:
            self.handle.note_ahead(output, step.gate_node)
        missed = bool(step.sources)
        step.close()
        if output is None or step.refused or self.handle.rule.wiring == "none":
            return
        if not step.gated:
            raise MatchError(
                f"the error is read at {self.handle.tap}, which did not run in this forward; choose error_at"
            )
        if missed:
            raise MatchError(
                f"a block ran after {self.handle.tap}, where the error is read; choose error_at behind all blocks"
            )

    @eager
    def before_block(self, name: str, block: nn.Module, args: Any, kwargs: Any) -> None:
        """With recompute: keep the block's inputs only, or nothing."""
        if self.step is not None and torch.is_grad_enabled() and not self.step.measuring:
            if kwargs.get("past_key_values") is not None:
                raise MatchError(
                    f"block {name} writes to a key-value cache, which a second run would change; set use_cache=False"
                )
            if self.step.replay is not None:
                self.step.dark = True
                torch.set_grad_enabled(False)
                return
            self.step.recomputations.append(lean.begin(block, args, kwargs))

    @eager
    def before_branch(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Inside a block: a branch of the residual stream learns from what arrives at its end and hands nothing on."""
        if not torch.is_grad_enabled() or self.handle.mode == "through":
            return None
        value = first_tensor(args)
        if value is None:
            raise MatchError(f"{type(module).__name__} was called without a positional tensor and cannot be a branch")
        if self.step is not None and self.step.measuring:
            self.step.cuts.append(Cut(value, value.detach().requires_grad_(), None))
            leaf = _handed_out(self.step.cuts[-1].leaf)
        else:
            leaf = _leaf(value)
        return map_tensors(args, lambda t: leaf if t is value else t)

    @eager
    def after_block(self, name: str, _block: nn.Module, _args: Any, output: Any) -> Any:
        """Cut the graph at a block's output."""
        step = self.step
        if step is not None and step.recomputations:
            lean.end(step.recomputations.pop())
        if step is not None and step.dark:
            step.dark = False
            torch.set_grad_enabled(True)
            return None if output is None else self._first_run(step, name, output)
        if self.replay is not None and output is not None and torch.is_grad_enabled():
            return self.replay.learn(output)
        if self.handle.mode == "through" or (output is None and self.handle.recompute):
            return None  # with recompute this hook also sees blocks that failed
        if step is None:
            return self._outside(name, output)
        main = self._main(name, output)
        step.ran += 1
        if not torch.is_grad_enabled():
            self._defer(step, name, main)
            return None
        leaf = self._cut(step, name, main)
        return map_tensors(output, lambda t: leaf if t is main else _cut_side(step, t))

    def _first_run(self, step: Step, name: str, output: Any) -> Any:
        """A block that ran without a graph and will run again; behind the last one the graph begins."""
        main = self._main(name, output)
        step.ran += 1
        step.calls.append(Call(name, tuple(main.shape), main.dtype, True))
        if self.handle.rule.wiring != "residual" or name != self.handle.last_block:
            return None
        step.fans += 1
        begin = gate(main.detach().requires_grad_(), [], partial(self._second_run, step, step.fans))
        return map_tensors(output, lambda t: begin if t is main else t)

    def _second_run(self, step: Step, number: int, delta: Tensor) -> list[Tensor | None]:
        """Residual wiring: the last block's output received `delta`, and every block learns from it."""
        if number == step.fans:
            self._learn(step, [delta] * len(step.calls))
        return [None]

    def _learn(self, step: Step, signals: Sequence[Tensor]) -> None:
        assert step.replay is not None
        self.replay = step.replay
        try:
            self.replay.run(self.handle.model, signals)
        finally:
            self.replay = None

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

    @staticmethod
    def _main(name: str, output: Any) -> Tensor:
        main = first_tensor(output)
        if main is None:
            raise MatchError(f"block {name} returned {type(output).__name__} without a floating-point tensor")
        return main

    def _cut(self, step: Step, name: str, main: Tensor) -> Tensor:
        wiring = self.handle.rule.wiring
        if wiring == "none" and self.handle.members is not None:
            return _leaf(main)
        if not (main.requires_grad or step.sources):
            return _leaf(main)
        different = next((s.shape for s in step.sources if s.shape != main.shape), None)
        if wiring == "residual" and different is not None:
            raise MatchError(
                f"rule {self.handle.rule.name} sends one signal along a residual stream, but block {name} returned "
                f"{tuple(main.shape)} after {tuple(different)}; use RandomFeedback()"
            )
        step.calls.append(Call(name, tuple(main.shape), main.dtype, False))
        earlier = list(step.sources)
        step.sources.append(main)
        if step.measuring:
            step.cuts.append(Cut(main, main.detach().requires_grad_(), name))
            return _handed_out(step.cuts[-1].leaf)
        if wiring == "residual" and name == self.handle.last_block:
            step.fans += 1
            return gate(main, earlier, partial(_fan_out, step, step.fans, len(step.sources)))
        return _leaf(main)

    @eager
    def before_head(self, _head: nn.Module, args: tuple[Any, ...]) -> Any:
        """Residual wiring: the head's exact gradient stays with the head's weights."""
        step = self.step
        if step is None or not torch.is_grad_enabled():
            return None
        value = first_tensor(args)
        if value is None:
            raise MatchError("the head was called without a positional tensor; use RandomFeedback() for this model")
        step.head_input, step.head_shape, step.head_dtype = value, value.shape, value.dtype
        leaf = value.detach()
        if step.measuring:
            step.cuts.append(Cut(value, leaf.requires_grad_(), None))
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
        step, wiring = self.step, self.handle.rule.wiring
        if step is None or not torch.is_grad_enabled():
            return None
        step.refused = True  # until every check has passed
        main = self._error_source(step, value)
        targets = [] if step.measuring else step.sources
        if wiring == "residual":
            self._check_stream(step)
            targets = [] if step.measuring or step.head_input is None else [step.head_input]
        noted = self.handle.note_membership(step, main)
        step.sources, step.head_input, step.gated, step.refused = [], None, True, False
        if wiring == "none":
            return None
        tied = gate(main, targets, partial(self._answer, step))
        step.gate_node = tied.grad_fn if noted else None
        return map_tensors(value, lambda t: tied if t is main else t)

    def _error_source(self, step: Step, value: Any) -> Tensor:
        tap = self.handle.tap
        main = first_tensor(value)
        if main is None:
            raise MatchError(f"the error cannot be read at {tap}: no floating-point tensor there; choose error_at")
        if main.ndim == 0:
            raise MatchError(f"{tap} is a single number, a loss and not an output; choose error_at in front of it")
        if step.gated:
            raise MatchError(
                f"{tap} ran twice in one forward, so there are two errors; read it elsewhere with error_at"
            )
        if not step.ran:
            raise MatchError(f"{tap} ran before any block; choose error_at behind the blocks")
        return main

    def _check_stream(self, step: Step) -> None:
        last = self.handle.last_block
        if step.calls and step.calls[-1].block != last:
            raise MatchError(
                f"block {step.calls[-1].block} ran last, expected {last}: rule {self.handle.rule.name} hands its "
                "signal on from the last block; list the blocks in running order, blocks=[first, …, last]"
            )

    def _answer(self, step: Step, grad_y: Tensor) -> Sequence[Tensor | None]:
        """The gate's backward: dL/dy in; dL/dy for what lies behind the tap, and one gradient per target, out."""
        if torch.is_grad_enabled():
            raise MatchError("feedback has no second derivative; leave create_graph=True out, or use passthrough()")
        if step.measuring:
            self.handle.measured(step, grad_y)
            return [grad_y]
        signals = self.handle.answer(step, grad_y)
        if step.replay is not None and self.handle.rule.wiring == "direct":
            self._learn(step, signals)
            return [grad_y]
        again = step.replay is None  # otherwise the blocks run again on our own call
        step.waiting, step.broadcast = sum(call.deferred for call in step.calls) if again else 0, None
        self.answering = step if step.waiting else None
        if self.handle.rule.wiring == "residual":
            return [grad_y, signals[0].reshape(step.head_shape).to(step.head_dtype)]
        gradients: list[Tensor | None] = [grad_y]
        for call, signal in zip(step.calls, signals, strict=True):
            (step.deferred.setdefault(call.block, []) if call.deferred else gradients).append(signal.to(call.dtype))
        return gradients

    def _defer(self, step: Step, name: str, main: Tensor) -> None:
        """No graph inside a training forward: reentrant checkpointing, which runs the block again in backward."""
        if step.measuring:
            raise MatchError(
                f"block {name} runs without a graph; to measure, use use_reentrant=False in activation checkpointing"
            )
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


def _leaf(main: Tensor) -> Tensor:
    """`main` without history. It asks for no gradient, which saves the next block's input gradient, unless it has to.

    Reentrant checkpointing builds a graph only for inputs that ask for a gradient, and GroupNorm's backward (torch
    2.13, CPU) crashes on channels-last inputs that do not.
    """
    channels_last = main.ndim > 3 and not main.is_contiguous()
    if channels_last or type(main.grad_fn).__name__ == "CheckpointFunctionBackward":
        return _handed_out(main.detach().requires_grad_())
    return main.detach()


def _cut_side(step: Step, tensor: Tensor) -> Tensor:
    """Side outputs (skip connections, position biases) are cut too: no gradient crosses a block by another door.

    They keep asking for a gradient, because torch picks attention kernels by it and values must not change.
    """
    if not tensor.requires_grad:
        return tensor
    leaf = tensor.detach().requires_grad_()
    if step.measuring:
        step.cuts.append(Cut(tensor, leaf, None))
    return _handed_out(leaf)


def _handed_out(leaf: Tensor) -> Tensor:
    """What the next module gets for a leaf that asks for a gradient: in-place operations are refused on leaves."""
    return gate(leaf, [], _same)


def _same(grad: Tensor) -> list[Tensor]:
    return [grad]


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
