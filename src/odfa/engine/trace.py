"""What a traced forward pass records: where in the autograd graph each block begins and ends.

In a traced pass a mark stands behind every output, so that the way of the data between blocks can be read off the
graph. What a block receives is the same as in any other pass, and so are the gradients.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

_BARE = "odfa: handed to a block without history"
"""Key in a node's metadata, which lives as long as the graph."""


@dataclass
class Span:
    """One call of a block. Nodes made inside it have sequence numbers from `start` up to `end`."""

    start: int
    end: int = -1
    entries: list[Node] = field(default_factory=list)
    """What the block's tensor arguments came from."""
    stream: Node | None = None
    """Of these, the stream that the block changes: the first tensor of its output's shape, or else its first one."""
    shape: tuple[int, ...] = ()
    """Shape of the main output."""
    marks: list[Node] = field(default_factory=list)
    """Behind its outputs, the main one first; empty if it ran without a graph."""
    made_of: dict[Node, list[Node | None]] = field(default_factory=dict)
    """Mark → what the output comes from: a mark has no history of its own unless true gradients are measured."""


class Trace:
    """The spans of a forward pass, in order of running."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.sources: list[Node | None] = []
        """Where outputs of blocks that ran with a graph come from; asked at once, as in-place changes move it."""
        self.ends: list[Node | None] = []
        """Where what the taps read comes from."""
        self.head_input: Node | None = None
        self.gates: set[Node | None] = set()
        """The gates at the taps, behind which the error is read."""
        self._running: list[Span] = []
        self._shapes: dict[int, list[tuple[tuple[int, ...], Node]]] = {}
        self._bare: dict[Node, bool] = {}
        self._held: list[GradientEdge] = []
        """Before 2.13 torch frees a node written in Python, a mark for instance, with the last tensor that came from
        it, though somebody refers to it; it then says nothing of its edges."""

    def begin(self, arguments: list[Tensor], *, strip: bool) -> dict[int, Tensor]:
        """A block is called.

        Returns:
            By id, what to hand it in place of arguments that come from nothing but other blocks' outputs: these ask for
            no gradient in other passes, and shall not in this one.
        """
        span = Span(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._running.append(span)
        made = [(tuple(t.shape), t.grad_fn) for t in arguments if t.grad_fn is not None]
        self._held += [get_gradient_edge(t) for t in arguments if t.grad_fn is not None]
        span.entries = [node for _, node in made]
        self._shapes[id(span)] = made
        bare = [t for t in arguments if strip and t.grad_fn is not None and self._is_bare(t.grad_fn)]
        for tensor in bare:
            assert tensor.grad_fn is not None
            _notes(tensor.grad_fn)[_BARE] = True
        return {id(t): t.detach() for t in bare}

    def end(self) -> Span:
        """The newest block that was called returns."""
        span = self._running.pop()
        span.end = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        return span

    def count(self, span: Span, shape: tuple[int, ...]) -> None:
        """A block returned an output of this shape that learns, or will when it runs again."""
        entries = self._shapes.pop(id(span))
        span.shape = shape
        alike = [node for entry, node in entries if entry == shape] or [node for _, node in entries]
        span.stream = next(iter(alike), None)
        self.spans.append(span)

    def inside(self, node: Node) -> int | None:
        """The number of the call that made a node; None if no block did."""
        number = node._sequence_nr()
        call = bisect_right(self.spans, number, key=lambda span: span.start) - 1
        return call if call >= 0 and number < self.spans[call].end else None

    def mark(self, span: Span, handed: Tensor, output: Tensor, *, asks: bool = False) -> None:
        """Note the mark behind an output; `asks`: this output asks for a gradient in other passes too."""
        node = handed.grad_fn
        assert node is not None  # a mark, or a gate
        self._held.append(get_gradient_edge(handed))
        span.marks.append(node)
        span.made_of[node] = [output.grad_fn, *span.entries]
        self._bare[node] = not asks

    def _is_bare(self, node: Node) -> bool:
        """Whether a node's history ends in marks only; answers are kept, so that a pass looks at a node once."""
        todo = [node]
        while todo:
            current = todo[-1]
            children = [child for child, _ in current.next_functions if child is not None]
            unknown = [child for child in children if child not in self._bare]
            if current not in self._bare and unknown:
                todo += unknown
                continue
            todo.pop()
            if current not in self._bare:  # a leaf has no children and is not bare; a reentrant checkpoint hides some
                hides = type(current).__name__ == "CheckpointFunctionBackward"
                self._bare[current] = bool(children) and not hides and all(self._bare[child] for child in children)
        return self._bare[node]


def as_traced(tensor: Tensor) -> Tensor:
    """What a block got for `tensor` in the traced pass, for activation checkpoints that run it again in backward.

    Whether an input asks for a gradient decides what a block saves, and a checkpoint has to find the same again.
    """
    return tensor.detach() if tensor.grad_fn is not None and _BARE in _notes(tensor.grad_fn) else tensor


def _notes(node: Node) -> dict[str, bool]:
    """A node's metadata, which torch declares as a method and gives as a dictionary."""
    return cast(dict[str, bool], node.metadata)
