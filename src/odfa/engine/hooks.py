"""The hooks of a DFA handle: they cut the graph at every block and tie it together again at the taps."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from odfa.engine import cuts
from odfa.engine.answers import Answers
from odfa.engine.axes import BatchAxes
from odfa.engine.ends import BlockEnds
from odfa.engine.executions.again import Pass
from odfa.engine.gates import mark
from odfa.engine.handle import Handle
from odfa.engine.inside import Branches
from odfa.engine.leaves import guard_input, main_of
from odfa.engine.norms import NormReaders
from odfa.engine.places import check_read
from odfa.engine.sharded import check_tokens, prepare
from odfa.engine.step import Step
from odfa.engine.surroundings import Surroundings
from odfa.engine.taps import TapReader
from odfa.engine.tensors import eager, first_tensor, in_backward, map_tensors, named_tensors
from odfa.engine.trace import Trace, as_traced
from odfa.engine.transforms import refuse_transforms
from odfa.errors import MatchError


class Hooks:
    """Owns every hook of one handle. The newest of `steps` is the forward pass in progress, None if it is not recorded.

    Forward: each block's output is replaced by a leaf without history. At the tap one gate node takes the histories
    that the wiring names as inputs, and its backward answers dL/dy with their gradients. In a traced pass a mark stands
    in the leaf's place, so that the graph can be read and ways around the blocks be cut.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.steps: list[Step | None] = []
        self.answers = Answers(handle)
        self._surroundings = Surroundings(handle)
        self._axes = BatchAxes(handle)
        self._ends = BlockEnds(handle, self._axes)
        self._reader = TapReader(handle, self.answers)
        compiled = handle.linears.compiled = handle.compiled is not None
        without = set(handle.linears.layers.values())
        self._norms = NormReaders(handle.blocks.values(), without=without, compiled=compiled)
        if handle.compiled is not None:
            handle.compiled.behind = self._norms.forget
            handle.compiled.arrives = handle.linears.share_compiled()
        self.branches = Branches(handle, self.before_branch)
        self._removable: list[RemovableHandle] = []
        self._cutting: list[tuple[nn.Module, RemovableHandle]] = []

    @property
    def step(self) -> Step | None:
        """The record of the forward pass in progress."""
        return self.steps[-1] if self.steps else None

    def attach(self) -> None:
        """Register; the order matters where one module is block, tap and root at once."""
        handle, keep = self.handle, self._removable.append
        keep(handle.model.register_forward_pre_hook(self.before_model, with_kwargs=True))
        taps = {tap.module for tap in handle.taps}
        failures = handle.execution.runs_blocks_again  # a block that fails has to end what was begun in front of it
        for name, block in handle.blocks.items():
            if block in taps:
                continue
            # before the user's hooks, which run again with a block that is recomputed
            keep(block.register_forward_pre_hook(partial(self.before_block, name), with_kwargs=True, prepend=True))
            keep(block.register_forward_hook(partial(self.after_block, name), always_call=failures))
            self._cutting.append((block, self._removable[-1]))
        self._removable += self.branches.attach() + self._norms.attach() + handle.linears.attach()
        if handle.rule.wiring.reads_head_input:
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

    # around the model

    @eager
    def before_model(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Open a fresh record; what an interrupted forward (Ctrl-C) left behind is closed first."""
        # a second run (streaming) has its own record; without gradients nothing learns
        if self.handle.second_run is not None or not torch.is_grad_enabled() or self.handle.mode == "through":
            self.steps.append(None)
            return None
        refuse_transforms()
        self.handle.optimizer_steps.listen()
        self._surroundings.check()
        prepare(self.handle, self._cutting)
        self._axes.begin(args, kwargs)
        self._norms.begin()
        self.handle.linears.begin()
        # an interrupted pass may have left autograd switched off or a recomputation open; the newest is ended first
        for left in reversed(self.steps):
            if left is not None:
                left.close()
        self.steps.clear()
        wiring = self.handle.new_wiring()
        wiring.crossing = self.branches.crossing()
        step = Step(wiring=wiring, execution=self.handle.new_execution(wiring, args, kwargs))
        step.trace = Trace() if step.execution.connects or self.handle.passes.wants_trace() else None
        step.taps.targets = self.handle.take_targets()
        if "forward products" in self.handle.rule.needs:
            step.execution.before = Pass(args, kwargs)
        self.steps.append(step)
        if self.handle.input_gradient == "local":
            return None
        guarded = partial(guard_input, self.handle.input_gradient)
        return map_tensors(args, guarded), map_tensors(kwargs, guarded)

    @eager
    def after_model(self, _model: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        """Close the record, also when the forward failed; refuse a pass whose blocks would silently get nothing."""
        step = self.steps.pop() if self.steps else None
        if step is None:
            return None
        missed = bool(step.sources)  # blocks ran behind every tap
        try:
            if output is not None and not step.taps.refused:
                if step.wiring.feeds:
                    check_read(self.handle, step, missed, output)
                check_tokens(self.handle, step)
                if step.taps.ties:
                    self._read_graph(step, output)
                return self._guard_unread(step, output)
        finally:
            step.close()
        return None

    def _read_graph(self, step: Step, output: Any) -> None:
        if step.trace is None:
            self.handle.passes.note_calls(step, output)
            self._axes.settle(step)
            return
        closed = self.handle.passes.note(step, output)
        self._axes.settle(step)  # before the cuts: looking for the batch follows the graph as it is
        step.wiring.around = {cut.edge.call for cut in closed if cut.edge.call is not None}
        step.wiring.keeps_signals = step.execution.connects or bool(step.wiring.around)
        cuts.install(closed, step)

    def _guard_unread(self, step: Step, output: Any) -> Any:
        """Outputs that depend on blocks but not on a tap: an error that comes from there would reach nobody."""
        members = self.handle.members
        if members is None or not members.unread or self.handle.unread == "allow":
            return None
        past = [(path, t) for path, t in named_tensors(output) if t.requires_grad and t.grad_fn not in step.taps.gates]
        told = {id(t): path for path, t in past if path in members.unread}
        if not told:
            return None
        return map_tensors(output, lambda t: mark(t, partial(self._unread, told[id(t)])) if id(t) in told else t)

    def _unread(self, path: str, grad: Tensor | None) -> list[Tensor | None]:
        if grad is not None:
            raise MatchError(self.handle.passes.complain_unread(path))
        return [None]

    # around a block

    @eager
    def before_block(self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note where the block begins, and let the execution prepare for it."""
        step = self.step
        if step is None:
            again = in_backward() and self.handle.second_run is None
            return (map_tensors(args, as_traced), map_tensors(kwargs, as_traced)) if again else None
        self._ends.kept.receive(name, args, kwargs)
        records = torch.is_grad_enabled()
        if step.trace is not None:
            tensors = [tensor for _, tensor in named_tensors([args, kwargs])]
            stripped = step.trace.begin(tensors, strip=records and not step.execution.connects)
            args = tuple(stripped.get(id(given), given) for given in args)
            kwargs = {key: stripped.get(id(given), given) for key, given in kwargs.items()}
        if records:
            step.execution.before_block(name, block, args, kwargs, watching=step.probes.watching)
        return (args, kwargs) if step.trace is not None else None

    @eager
    def after_block(self, name: str, _block: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        """Cut the graph at a block's output."""
        step, second_run = self.step, self.handle.second_run
        # first of all, also for blocks that failed: autograd may be switched off, a recomputation open
        again = step is not None and step.execution.after_block(watching=step.probes.watching)
        span = step.trace.end() if step is not None and step.trace is not None and output is not None else None
        if second_run is not None and output is not None and torch.is_grad_enabled() == second_run.records:
            shared = self.handle.members is not None and self.handle.members.shared
            return second_run.learn(output, shared=shared)
        if self.handle.mode == "through" or (output is None and self.handle.execution.runs_blocks_again):
            return None  # blocks that run again are also seen here when they fail
        if step is None:
            return self._outside(name, output)
        main = main_of(name, output)
        step.execution.ran += 1
        if again:
            return self._ends.without_graph(step, span, name, main, output)
        if not torch.is_grad_enabled():
            self._ends.deferred(step, span, name, main)
            return None
        return self._ends.with_graph(step, span, name, main, output)

    def _outside(self, name: str, output: Any) -> Any:
        """A block ran without its model: autograd recomputes it, or somebody called it directly."""
        if in_backward():
            return self.answers.run_again(name, output)
        if torch.is_grad_enabled():
            raise MatchError(
                f"block {name} ran outside the model that DFA is attached to, so no error would reach it; "
                "call that model, attach to the part that you call, or wrap the call in torch.no_grad()"
            )
        return None

    @eager
    def before_branch(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Inside a block: what a branch of the residual stream reads is cut off from what lies in front of it.

        The branch learns from the gradient at its end, which is the block's signal, and gives none to its input.
        """
        if not torch.is_grad_enabled() or self.handle.mode == "through":
            return None
        value = first_tensor(args)
        if value is None:
            raise MatchError(f"{type(module).__name__} was called without a positional tensor and cannot be a branch")
        leaf = self._ends.branched(self.step, value)
        return map_tensors(args, lambda t: leaf if t is value else t)

    # at the head and the taps

    @eager
    def before_head(self, _head: nn.Module, args: tuple[Any, ...]) -> Any:
        """The signal enters here: the head's exact gradient stays with the head's weights."""
        step = self.step
        if step is None or not torch.is_grad_enabled():
            return None
        value = first_tensor(args)
        if value is None:
            raise MatchError("the head was called without a positional tensor; use RandomFeedback() for this model")
        step.wiring.take_head_input(value)
        leaf = self._ends.severed(step, value) if step.execution.connects else value.detach()
        return map_tensors(args, lambda t: leaf if t is value else t)

    @eager
    def before_tap(self, number: int, _module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Read the error at a module's input."""
        return self._tap(number, args)

    @eager
    def after_tap(self, number: int, _module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Read the error at a module's output."""
        return self._tap(number, output, args)

    def _tap(self, number: int, value: Any, inputs: Sequence[Any] | None = None) -> Any:
        step = self.step
        if step is None or not torch.is_grad_enabled():
            return None
        return self._reader.read(step, number, value, inputs)
