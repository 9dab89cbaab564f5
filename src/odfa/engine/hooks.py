"""The hooks of a DFA handle: they cut the graph at every block and tie it together again at the taps."""

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from odfa.engine import cuts, lean
from odfa.engine.answers import Answers
from odfa.engine.axes import BatchAxes
from odfa.engine.gate import chained_gate, gate, mark
from odfa.engine.handle import Handle, Recompute
from odfa.engine.leaves import asks, guard_input, leaf_of, main_of, side_of
from odfa.engine.norms import NormReaders
from odfa.engine.places import check_read, check_stream
from odfa.engine.rules import Call
from odfa.engine.sharded import check_tokens, prepare
from odfa.engine.step import Probe, Step, Tie
from odfa.engine.stream import Replay
from odfa.engine.surroundings import Surroundings
from odfa.engine.tensors import eager, first_tensor, in_backward, map_tensors, named_tensors
from odfa.engine.trace import Span, Trace
from odfa.engine.transforms import refuse_transforms
from odfa.errors import MatchError


class Hooks:
    """Owns every hook of one handle. The newest of `steps` is the forward pass in progress, None if it is not recorded.

    Forward: each block's output is replaced by a leaf without history. At the tap one gate node takes the outputs'
    histories as inputs, and its backward answers dL/dy with one signal per block. In residual wiring the gate feeds the
    head's input instead, and a gate at the last block hands what arrives there to all blocks. In a traced pass a mark
    stands in the leaf's place, so that the graph can be read and ways around the blocks be cut.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.steps: list[Step | None] = []
        self.answers = Answers(handle)
        self._surroundings = Surroundings(handle)
        self._axes = BatchAxes(handle)
        self._norms = NormReaders(handle.blocks.values(), without=set(handle.linears.layers.values()))
        self._removable: list[RemovableHandle] = []
        self._cutting: list[tuple[nn.Module, RemovableHandle]] = []

    @property
    def step(self) -> Step | None:
        """The record of the forward pass in progress."""
        return self.steps[-1] if self.steps else None

    def attach(self, *, recompute: Recompute) -> None:
        """Register; the order matters where one module is block, tap and root at once."""
        handle, keep = self.handle, self._removable.append
        keep(handle.model.register_forward_pre_hook(self.before_model, with_kwargs=True))
        taps = {tap.module for tap in handle.taps}
        for name, block in handle.blocks.items():
            if block in taps:
                continue
            # before the user's hooks, which run again with a block that is recomputed
            keep(block.register_forward_pre_hook(partial(self.before_block, name), with_kwargs=True, prepend=True))
            keep(block.register_forward_hook(partial(self.after_block, name), always_call=bool(recompute)))
            self._cutting.append((block, self._removable[-1]))
        for module in handle.branches.values():
            keep(module.register_forward_pre_hook(self.before_branch, prepend=True))
        self._removable += self._norms.attach() + handle.linears.attach()
        if handle.rule.wiring == "residual":
            keep(handle.tap.module.register_forward_pre_hook(self.before_head))
        for number, tap in enumerate(handle.taps):
            if tap.side == "input":
                keep(tap.module.register_forward_pre_hook(partial(self.before_tap, number)))
            else:
                keep(tap.module.register_forward_hook(partial(self.after_tap, number)))
        keep(handle.model.register_forward_hook(self.after_model, always_call=True))
        if "torch._dynamo" in sys.modules:  # code compiled before would go on without the hooks
            torch.compiler.reset()

    def remove(self) -> None:
        """Remove exactly these hooks."""
        for removable in self._removable:
            removable.remove()
        self._removable.clear()
        self._cutting.clear()

    @eager
    def before_model(self, _model: nn.Module, args: Any, kwargs: Any) -> Any:
        """Open a fresh record; what an interrupted forward (Ctrl-C) left behind is closed first."""
        if self.answers.replay is not None or not torch.is_grad_enabled() or self.handle.mode == "through":
            self.steps.append(None)
            return None
        refuse_transforms()
        self._surroundings.check()
        prepare(self.handle, self._cutting)
        self._axes.begin(args, kwargs)
        self._norms.begin()
        self.handle.linears.begin()
        for left in reversed(self.steps):
            if left is not None:
                left.close()
        self.steps.clear()
        step = Step(measuring=self.handle.mode == "measure")
        step.trace = Trace() if step.measuring or self.handle.wants_trace() else None
        if self.handle.recompute == "stream" and not step.measuring:
            step.replay = Replay(args, kwargs)
        self.steps.append(step)
        if self.handle.input_gradient == "local":
            return None
        guarded = partial(guard_input, self.handle.input_gradient)
        return map_tensors(args, guarded), map_tensors(kwargs, guarded)

    @eager
    def after_model(self, _model: nn.Module, _args: Any, output: Any) -> Any:
        """Close the record, also when the forward failed; refuse a pass whose blocks would silently get nothing."""
        step = self.steps.pop() if self.steps else None
        if step is None:
            return None
        missed = bool(step.sources)
        try:
            if output is not None and not step.refused:
                if self.handle.rule.wiring != "none":
                    check_read(self.handle, step, missed, output)
                check_tokens(self.handle, step)
                if step.trace is not None and step.ties:
                    self._read_trace(step, output)
                elif step.ties:
                    self.handle.note_calls(step, output)
                    self._axes.settle(step)
                return self._guard_unread(step, output)
        finally:
            step.close()
        return None

    def _read_trace(self, step: Step, output: Any) -> None:
        closed = self.handle.note(step, output)
        self._axes.settle(step)
        step.keeps_signals = any(cut.call is not None for cut in closed)
        cuts.install(closed, step, partial(self.answers.instead, step))

    def _guard_unread(self, step: Step, output: Any) -> Any:
        """Outputs that depend on blocks but not on a tap: an error that comes from there would reach nobody."""
        members = self.handle.members
        if members is None or not members.unread or self.handle.unread == "allow":
            return None
        past = [(path, t) for path, t in named_tensors(output) if t.requires_grad and t.grad_fn not in step.gates]
        told = {id(t): path for path, t in past if path in members.unread}
        if not told:
            return None
        return map_tensors(output, lambda t: mark(t, partial(self._unread, told[id(t)])) if id(t) in told else t)

    def _unread(self, path: str, grad: Tensor | None) -> list[Tensor | None]:
        if grad is not None:
            raise MatchError(self.handle.complain_unread(path))
        return [None]

    @eager
    def before_block(self, name: str, block: nn.Module, args: Any, kwargs: Any) -> Any:
        """Note where the block begins; with recompute: keep the block's inputs only, or nothing."""
        step = self.step
        if step is None:
            return None
        recording = torch.is_grad_enabled()
        if step.trace is not None:
            tensors = [tensor for _, tensor in named_tensors([args, kwargs])]
            stripped = step.trace.begin(tensors, strip=recording and not step.measuring)
            args = tuple(stripped.get(id(given), given) for given in args)
            kwargs = {key: stripped.get(id(given), given) for key, given in kwargs.items()}
        if recording and self.handle.recompute and not (step.measuring or step.watching):
            if kwargs.get("past_key_values") is not None:
                raise MatchError(
                    f"block {name} writes to a key-value cache, which a second run would change; set use_cache=False"
                )
            if step.replay is not None:
                step.dark = True
                torch.set_grad_enabled(False)
            else:
                step.recomputations.append(lean.begin(block, args, kwargs))
        return (args, kwargs) if step.trace is not None else None

    @eager
    def before_branch(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Inside a block: a branch of the residual stream learns from what arrives at its end and hands nothing on."""
        if not torch.is_grad_enabled() or self.handle.mode == "through":
            return None
        value = first_tensor(args)
        if value is None:
            raise MatchError(f"{type(module).__name__} was called without a positional tensor and cannot be a branch")
        leaf = self._severed(self.step, value)
        return map_tensors(args, lambda t: leaf if t is value else t)

    @eager
    def after_block(self, name: str, _block: nn.Module, _args: Any, output: Any) -> Any:
        """Cut the graph at a block's output."""
        step = self.step
        if step is not None and step.recomputations:
            lean.end(step.recomputations.pop())
        dark = step is not None and (step.dark or (step.watching and step.replay is not None))
        if step is not None and dark:
            step.dark = False
            torch.set_grad_enabled(True)
        span = step.trace.end() if step is not None and step.trace is not None and output is not None else None
        if self.answers.replay is not None and output is not None and torch.is_grad_enabled():
            shared = self.handle.members is not None and self.handle.members.shared
            return self.answers.replay.learn(output, shared=shared)
        if self.handle.mode == "through" or (output is None and self.handle.recompute):
            return None  # with recompute this hook also sees blocks that failed
        if step is None:
            return self._outside(name, output)
        main = main_of(name, output)
        step.ran += 1
        if dark:
            return self._first_run(step, span, name, main, output)
        if not torch.is_grad_enabled():
            self._defer(step, span, name, main)
            return None
        leaf = self._cut(step, span, name, main)
        return map_tensors(output, lambda t: leaf if t is main else self._cut_side(step, span, t))

    def _first_run(self, step: Step, span: Span | None, name: str, main: Tensor, output: Any) -> Any:
        """A block that ran without a graph and will run again; behind the last one the graph begins."""
        self._count(step, span, name, main, deferred=True)
        if self.handle.rule.wiring == "residual" and name == self.handle.last_block:
            step.fans += 1
            begin = gate(main.detach().requires_grad_(), [], partial(self.answers.second_run, step, step.fans))
        elif self._axes.watch(step, name, main) or span is not None:
            begin = self._mark(step, name, main)
        else:
            return None
        if step.trace is not None and span is not None:
            step.trace.mark(span, begin, main, asks=step.watching)
        return map_tensors(output, lambda t: begin if t is main else self._cut_side(step, span, t))

    def _outside(self, name: str, output: Any) -> Any:
        """A block ran without its model: autograd recomputes it, or somebody called it directly."""
        if in_backward():
            return self.answers.again(name, output)
        if torch.is_grad_enabled():
            raise MatchError(
                f"block {name} ran outside the model that DFA is attached to, so no error would reach it; "
                "call that model, attach to the part that you call, or wrap the call in torch.no_grad()"
            )
        return None

    @staticmethod
    def _count(step: Step, span: Span | None, name: str, main: Tensor, *, deferred: bool) -> None:
        step.calls.append(Call(name, tuple(main.shape), main.dtype, deferred))
        if step.trace is not None and span is not None:
            step.trace.count(span, tuple(main.shape))

    def _cut(self, step: Step, span: Span | None, name: str, main: Tensor) -> Tensor:
        wiring = self.handle.rule.wiring
        if wiring == "none" and step.trace is None:
            return leaf_of(main)
        if not (main.requires_grad or step.sources):
            return leaf_of(main)
        different = next((s.shape for s in step.sources if s.shape != main.shape), None)
        if wiring == "residual" and different is not None:
            raise MatchError(
                f"rule {self.handle.rule.name} sends one signal along a residual stream, but block {name} returned "
                f"{tuple(main.shape)} after {tuple(different)}; use RandomFeedback()"
            )
        self._count(step, span, name, main, deferred=False)
        earlier = list(step.sources)
        step.sources.append(main)
        if wiring == "residual" and name == self.handle.last_block:
            step.fans += 1
            end = gate(main, earlier, partial(self.answers.fan_out, step, step.fans, len(step.sources)))
        elif not (self._axes.watch(step, name, main) or span is not None):
            return leaf_of(main, asking=self.handle.members is not None and self.handle.members.checkpoints)
        else:
            end = self._mark(step, name, main)
        if step.trace is not None and span is not None:
            step.trace.sources.append(main.grad_fn)
            step.trace.mark(span, end, main, asks=asks(main) or step.watching)
        return end

    def _mark(self, step: Step, name: str, output: Tensor, *, side: bool = False) -> Tensor:
        """A mark in the place of a leaf; it is tied to what lies before it where true gradients are measured."""
        connected = step.measuring and output.requires_grad
        tied = output if connected else output.detach().requires_grad_()
        marked = mark(tied, partial(self._at_mark, step, None if step.trace is None else name))
        if step.measuring or step.watching:
            block = None if side else name
            step.probes.append(Probe(None, marked, block) if connected else Probe(output, tied, block))
        return marked

    def _cut_side(self, step: Step, span: Span | None, tensor: Tensor) -> Tensor:
        """Side outputs are cut too."""
        if not tensor.requires_grad or step.trace is None or span is None or not span.marks:
            return side_of(tensor)
        side = self._mark(step, step.calls[-1].block, tensor, side=True)
        step.trace.mark(span, side, tensor, asks=True)
        return side

    def _at_mark(self, step: Step, name: str | None, grad: Tensor | None) -> list[Tensor | None]:
        """All ways to a mark that the trace knows are closed, so that what arrives comes past the taps.

        `name` is None in a pass without a trace.
        """
        if step.exact:
            return [grad]
        refuses = self.handle.unread == "refuse" and self.handle.rule.wiring != "none"
        if grad is not None and name is not None and refuses:
            raise MatchError(self.handle.complain_unread(f"the output of block {name}"))
        return [None]

    def _severed(self, step: Step | None, value: Tensor) -> Tensor:
        """`value` without history; while measuring with a history that only the true gradient follows."""
        if step is None or not step.measuring:
            return leaf_of(value)
        return mark(value, lambda grad: [grad if step.exact else None]) if value.requires_grad else value

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
        leaf = self._severed(step, value) if step.measuring else value.detach()
        return map_tensors(args, lambda t: leaf if t is value else t)

    @eager
    def before_tap(self, number: int, _module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Read the error at a module's input."""
        return self._tie(number, args)

    @eager
    def after_tap(self, number: int, _module: nn.Module, args: Any, output: Any) -> Any:
        """Read the error at a module's output."""
        return self._tie(number, output, args)

    def _tie(self, number: int, value: Any, read: Any = None) -> Any:
        step, wiring = self.step, self.handle.rule.wiring
        if step is None or not torch.is_grad_enabled():
            return None
        step.refused = True  # until every check has passed
        main = self._error_source(step, number, value)
        targets = step.sources
        if wiring == "residual":
            check_stream(self.handle, step)
            targets = [] if step.head_input is None else [step.head_input]
        answered = step.ties[-1].calls.stop if step.ties else 0
        kind = torch.empty(0, dtype=main.dtype, device=main.device)
        tie = Tie(number, main.shape, range(answered, len(step.calls)), kind)
        step.outputs.append((main, first_tensor(read)))
        if step.ties and step.replay is not None and tie.calls:
            raise MatchError("recompute='stream' reads the error behind all blocks; use recompute=True for this model")
        step.ties.append(tie)
        if step.trace is not None:
            step.trace.ends.append(main.grad_fn)
            step.trace.head_input = None if step.head_input is None else step.head_input.grad_fn
        else:
            step.reads += [main.grad_fn] + ([] if step.head_input is None else [step.head_input.grad_fn])
        if step.measuring:
            self.handle.record(tie, main, targets)
        step.sources, step.head_input, step.refused = [], None, False
        if wiring == "none":
            return None
        tied = self._gate(step, tie, main, targets)
        step.gates.add(tied.grad_fn)
        if step.trace is not None:
            step.trace.gates.add(tied.grad_fn)
        return map_tensors(value, lambda t: tied if t is main else t)

    def _gate(self, step: Step, tie: Tie, main: Tensor, targets: list[Tensor]) -> Tensor:
        answer = partial(self.answers.at_tap, step, tie)
        if len(self.handle.taps) == 1:
            return gate(main, targets, answer)
        tied, step.link = chained_gate(main, step.link, targets, answer)
        return tied

    def _error_source(self, step: Step, number: int, value: Any) -> Tensor:
        tap = self.handle.taps[number]
        main = first_tensor(value)
        if main is None:
            raise MatchError(f"the error cannot be read at {tap}: no floating-point tensor there; choose error_at")
        if main.ndim == 0:
            raise MatchError(f"{tap} is a single number, a loss and not an output; choose error_at in front of it")
        if any(tie.tap == number for tie in step.ties):
            raise MatchError(
                f"{tap} ran twice in one forward, so there are two errors; read it elsewhere with error_at"
            )
        if not step.ran:
            raise MatchError(f"{tap} ran before any block; choose error_at behind the blocks")
        return main

    def _defer(self, step: Step, span: Span | None, name: str, main: Tensor) -> None:
        """No graph inside a training forward: reentrant checkpointing, which runs the block again in backward."""
        if step.measuring:
            raise MatchError(
                f"block {name} runs without a graph; to measure, use use_reentrant=False in activation checkpointing"
            )
        self._count(step, span, name, main, deferred=True)
