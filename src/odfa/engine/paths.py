"""Where gradients would pass a block: the autograd graph of a traced forward pass, and the edges of it that are cut.

Between blocks no gradient flows. What a model computes outside its blocks can lead around them: a residual that is added
behind a block, a long skip connection. Such an edge u → v is found by three sets, one bit per call of a block:

    upstream(u)  calls that u's value depends on
    feeds(v)     calls that depend on v's value
    around(u, v) = upstream(u) minus upstream(v), of what v, or something that v is made of, feeds.

An edge outside the blocks with around(u, v) not empty is cut, if something that learns lies behind it. Conditioning that
does not come from blocks and is not the stream that enters the first one (time steps, encoded positions) is no way around.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from odfa.engine.trace import Node, Trace

_ELEMENTWISE = {
    f"{name}Backward0" for name in ("Add", "Mul", "Div", "Neg", "NativeDropout", "ToCopy", "Clone", "Alias")
}
"""What may stand between a block's output and the place where its residual is added."""


@dataclass(frozen=True)
class Cut:
    """Edge number `index` of a node is cut; the signal of call `call`, if any, goes on in its place."""

    node: Node
    index: int
    call: int | None


class Paths:
    """The graph behind `roots`, nodes in an order in which what a node is made of comes first."""

    def __init__(self, trace: Trace, roots: Iterable[Node]) -> None:
        self.spans = trace.spans
        self._made = {node: made for span in self.spans for node, made in span.made_of.items()}
        roots = list(roots)
        self._adopt_checkpoints(roots)
        self._starts = [span.start for span in self.spans]
        self.call_of = {node: call for call, span in enumerate(self.spans) for node in span.marks}
        self._order = self._made_first([*roots, *(node for span in self.spans for node in span.marks)])
        self.upstream = self._upstream()
        self._learns = self._learning()
        feeds = self._feeds()
        streams = {n for n in self._order if self.upstream[n]} | set(self._first_streams())
        self._reaches: dict[Node, int] = {}
        for node in self._order:
            reached = feeds[node] if node in streams else 0
            if node not in self.call_of:
                for child in self._made_of(node):
                    reached |= self._reaches[child]
            self._reaches[node] = reached

    def children(self, node: Node) -> Iterator[tuple[int, Node, int]]:
        """Edges of a node to others that are not leaves: their number, the node, which of its outputs."""
        for index, (child, output) in enumerate(node.next_functions):
            if child is not None and not is_leaf(child):
                yield index, child, output

    def is_inside(self, node: Node) -> bool:
        """Whether a node was made by a block."""
        number = node._sequence_nr()
        place = bisect_right(self._starts, number) - 1
        return place >= 0 and number < self.spans[place].end

    def around(self, node: Node, child: Node) -> int:
        """The calls that an edge leads around; 0 inside blocks, or where nothing behind it learns."""
        if node in self.call_of or child in self.call_of or not self._learns[child] or self.is_inside(node):
            return 0
        return self.upstream[node] & ~self.upstream[child] & self._reaches[child]

    def cuts(self) -> list[Cut]:
        """All edges that lead around a block, with the signal that a residual edge gets instead."""
        joined = {self._place_of_joining(call): call for call in range(len(self.spans))}
        found = []
        for node in self._order:
            for index, child, output in self.children(node):
                if self.around(node, child):
                    call = joined.get(node)
                    fits = call is not None and _shape(child, output) == _shape(node, 0) == self.spans[call].shape
                    found.append(Cut(node, index, call if fits else None))
        return found

    def known(self, *, without: set[Node]) -> list[Cut]:
        """All edges to marks, but for those in `without`: gradients that arrive there have nowhere to go."""
        return [
            Cut(node, index, None)
            for node in self._order
            for index, child, _ in self.children(node)
            if child in self.call_of and child not in without and node not in self.call_of
        ]

    def escapes(self) -> int | None:
        """A call whose inside is reached by another way than by what it returned, if there is one."""
        for node in self._order:
            if node in self.call_of or self.is_inside(node):
                continue
            for _, child, _ in self.children(node):
                if child not in self.call_of and self._learns[child] and self.is_inside(child):
                    return bisect_right(self._starts, child._sequence_nr()) - 1
        return None

    def _adopt_checkpoints(self, roots: list[Node]) -> None:
        """A block inside reentrant checkpointing has no mark; the checkpoint's node stands for it, made just before."""
        unmarked = [span for span in self.spans if not span.marks]
        if not unmarked:
            return
        nodes = [n for n in self._made_first(roots) if type(n).__name__ == "CheckpointFunctionBackward"]
        for span in unmarked:
            earlier = [node for node in nodes if node._sequence_nr() < span.start]
            if earlier:
                span.marks = [max(earlier, key=lambda node: node._sequence_nr())]

    def _made_of(self, node: Node) -> list[Node]:
        """What a node is made of; for a mark its block's output and what the block received."""
        own = [child for _, child, _ in self.children(node)]
        return own + [made for made in self._made.get(node, ()) if made is not None and not is_leaf(made)]

    def _made_first(self, roots: list[Node]) -> list[Node]:
        order: dict[Node, None] = {}
        todo = [(root, False) for root in roots if root is not None and not is_leaf(root)]
        while todo:
            node, done = todo.pop()
            if done:
                order[node] = None
            elif node not in order:
                todo.append((node, True))
                todo += [(child, False) for child in self._made_of(node) if child not in order]
        return list(order)

    def _upstream(self) -> dict[Node, int]:
        found: dict[Node, int] = {}
        for node in self._order:
            calls = 1 << self.call_of[node] if node in self.call_of else 0
            for child in self._made_of(node):
                calls |= found[child]
            found[node] = calls
        return found

    def _learning(self) -> dict[Node, bool]:
        """Whether something that learns is reached from a node without passing a mark."""
        found: dict[Node, bool] = {}
        for node in self._order:
            children = [child for child, _ in node.next_functions if child is not None]
            found[node] = node not in self.call_of and any(is_leaf(c) or found[c] for c in children)
        return found

    def _feeds(self) -> dict[Node, int]:
        found: dict[Node, int] = dict.fromkeys(self._order, 0)
        for node in reversed(self._order):
            calls = found[node] | (1 << self.call_of[node] if node in self.call_of else 0)
            for child in self._made_of(node):
                found[child] |= calls
        return found

    def _first_streams(self) -> Iterator[Node]:
        """What enters a block that no other block feeds, back to the last place where several tensors met."""
        for span in self.spans:
            node = span.stream
            while node is not None and not self.upstream.get(node, 1):
                yield node
                children = [child for _, child, _ in self.children(node)]
                node = children[0] if len(children) == 1 else None

    def _place_of_joining(self, call: int) -> Node:
        """The addition that joins a block's output, or the output times a gate, and the residual around the block."""
        node = self.spans[call].marks[0] if self.spans[call].marks else None
        while node is not None:
            users = self._users.get(node, set())
            if len(users) != 1:
                return None
            (node,) = users
            if self.is_inside(node) or node in self.call_of or node.name() not in _ELEMENTWISE:
                return None
            if any(self.around(node, child) >> call & 1 for _, child, _ in self.children(node)):
                return node if node.name() == "AddBackward0" and node._saved_alpha == 1 else None
        return None

    @property
    def _users(self) -> dict[Node, set[Node]]:
        if not hasattr(self, "_users_of"):
            self._users_of: dict[Node, set[Node]] = {}
            for node in self._order:
                for _, child, _ in self.children(node):
                    self._users_of.setdefault(child, set()).add(node)
        return self._users_of


def is_leaf(node: Node) -> bool:
    """Whether a node stands for a tensor that has no history."""
    return type(node).__name__ == "AccumulateGrad"


def _shape(node: Node, output: int) -> Any:
    return tuple(node._input_metadata[output].shape)
