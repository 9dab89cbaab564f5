"""What takes the place of a block's output in the forward pass: a leaf, a mark or a gate."""

from functools import partial
from typing import Any

from torch import Tensor

from odfa.engine.axes import BatchAxes
from odfa.engine.gates import gate, mark
from odfa.engine.handle import Handle
from odfa.engine.kept import KeptTensors
from odfa.engine.leaves import asks, leaf_of, side_of
from odfa.engine.record import Probe
from odfa.engine.step import Step
from odfa.engine.tensors import map_tensors
from odfa.engine.trace import Span
from odfa.engine.wirings import Graphs
from odfa.errors import MatchError


class BlockEnds:
    """Cuts the graph where blocks end.

    A leaf has no history, so nothing flows back. A mark is a node that the trace finds in the graph; it hands nothing
    on either. A gate stands where the wiring wants to know what arrives.
    """

    def __init__(self, handle: Handle, axes: BatchAxes) -> None:
        self.handle, self._axes = handle, axes
        self.kept = KeptTensors(handle.rule)

    def with_graph(self, step: Step, span: Span | None, name: str, main: Tensor, output: Any) -> Any:
        """The output of a block that ran with its graph."""
        end = self._cut(step, span, name, main)
        if step.wiring.asks_inputs and end.requires_grad:
            step.wiring.begins.append(end)
        return map_tensors(output, lambda t: end if t is main else self._side(step, span, t))

    def without_graph(self, step: Step, span: Span | None, name: str, main: Tensor, output: Any) -> Any:
        """The output of a block that ran without a graph and will run again; behind the last one the graph begins."""
        self._count(step, span, name, main, deferred=True)
        arrives = step.wiring.arrival(name)
        if arrives is not None:
            begin = main.detach().requires_grad_()
            graphs = Graphs([begin], [])  # of this call alone, because the blocks have no graph in this run
            begin = gate(begin, [], partial(step.execution.at_arrival, step, arrives, graphs))
        elif self._axes.watch(step, name, main) or span is not None:
            begin = self._mark(step, name, main)
        else:
            return None
        if step.trace is not None and span is not None:
            step.trace.mark(span, begin, main, asks=step.probes.watching)
        return map_tensors(output, lambda t: begin if t is main else self._side(step, span, t))

    def deferred(self, step: Step, span: Span | None, name: str, main: Tensor) -> None:
        """Somebody else runs the block without a graph: reentrant checkpointing, which runs it again in backward.

        Raises:
            MatchError: alignment is measured, which needs the graph.
        """
        step.execution.check_deferred(name)
        step.wiring.check_deferred(name)
        self._count(step, span, name, main, deferred=True)

    def severed(self, step: Step | None, value: Tensor) -> Tensor:
        """`value` without history; while measuring with a history that only the true gradient follows."""
        if step is None or not step.execution.connects:
            return leaf_of(value)
        return mark(value, lambda grad: [grad if step.exact else None]) if value.requires_grad else value

    def branched(self, step: Step | None, value: Tensor) -> Tensor:
        """The same for what a branch inside a block reads; signals that cross the block follow its history, too."""
        if not self.handle.rule.crossings or not value.requires_grad:
            return self.severed(step, value)
        # neither: torch runs a checkpointed block again for what it saved, and follows the graph of the first run
        running = self.handle.second_run or (None if step is None else step.execution)

        def at_branch(grad: Tensor | None) -> list[Tensor | None]:
            crosses = running is not None and running.wiring.crosses
            return [grad if crosses or (step is not None and step.exact) else None]

        return mark(value, at_branch)

    def _cut(self, step: Step, span: Span | None, name: str, main: Tensor) -> Tensor:
        # a wiring that feeds nothing has no use for the history, which then is freed at once; a trace reads it
        known = step.wiring.feeds or step.trace is not None
        if not known or not (main.requires_grad or step.sources):
            return leaf_of(main)
        step.wiring.check_output(name, main.shape, step.sources)
        self._count(step, span, name, main, deferred=False)
        earlier = list(step.sources)
        step.sources.append(main)
        arrives = step.wiring.arrival(name)
        if arrives is not None:
            graphs = Graphs(step.sources, step.wiring.begins)
            end = gate(main, earlier, partial(step.execution.at_arrival, step, arrives, graphs))
        elif self._axes.watch(step, name, main) or span is not None:
            end = self._mark(step, name, main)
        else:
            checkpoints = self.handle.members is not None and self.handle.members.checkpoints
            return leaf_of(main, asking=checkpoints or step.wiring.asks_inputs)
        if step.trace is not None and span is not None:
            step.trace.sources.append(main.grad_fn)
            step.trace.mark(span, end, main, asks=asks(main) or step.probes.watching or step.wiring.asks_inputs)
        return end

    def _count(self, step: Step, span: Span | None, name: str, main: Tensor, *, deferred: bool) -> None:
        step.calls.append(self.kept.call(name, main, deferred=deferred))
        if step.trace is not None and span is not None:
            step.trace.count(span, tuple(main.shape))

    def _mark(self, step: Step, name: str, output: Tensor, *, side: bool = False) -> Tensor:
        """A mark in the place of a leaf; it is tied to what lies before it where true gradients are measured."""
        connects, watching = step.execution.connects, step.probes.watching
        connected = connects and output.requires_grad
        tied = output if connected else output.detach().requires_grad_()
        marked = mark(tied, partial(self._at_mark, step, None if step.trace is None else name))
        if connects or watching:
            block = None if side else name
            step.probes.found.append(Probe(None, marked, block) if connected else Probe(output, tied, block))
        return marked

    def _side(self, step: Step, span: Span | None, tensor: Tensor) -> Tensor:
        """Side outputs are cut too."""
        if not tensor.requires_grad or step.trace is None or span is None or not span.marks:
            return side_of(tensor)
        side = self._mark(step, step.calls[-1].block, tensor, side=True)
        step.trace.mark(span, side, tensor, asks=True)
        return side

    def _at_mark(self, step: Step, name: str | None, grad: Tensor | None) -> list[Tensor | None]:
        """Backward of a mark. All ways to it that the trace knows are closed, so what arrives comes past the taps.

        `name` is None in a pass without a trace.
        """
        if step.exact:
            return [grad]
        if step.wiring.crosses:
            return [None]
        refuses = self.handle.unread == "refuse" and step.wiring.feeds
        if grad is not None and name is not None and refuses:
            raise MatchError(self.handle.passes.complain_unread(f"the output of block {name}"))
        return [None]
