"""Where gradients would pass a block: the autograd graph of a traced forward pass, and the edges that are cut.

Between blocks no gradient flows. What a model computes outside its blocks can lead around them: a residual that is
added behind a block, a long skip connection. Three sets, one bit per call of a block, tell where:

    upstream(v)  calls that v's value depends on
    feeds(v)     calls that depend on v's value, if v is a part of the stream
    past(v)      calls that a gradient at v has come past: upstream(v), and what it brought along from behind

An edge u → v outside the blocks is cut where past(u) minus upstream(v) meets feeds(v): a gradient would come from
behind a block to what the block is made of. Gates and short cuts beside a block thus learn from what arrives, and hand
nothing on. Conditioning that neither comes from blocks nor is the stream that enters the first one (time steps, encoded
positions) is no part of the stream. Where a residual is added to a block's output, the edge gets the block's signal in
place of nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import Node

from odfa.engine.trace import Trace

_ELEMENTWISE = {
    f"{name}Backward0" for name in ("Add", "Mul", "Div", "Neg", "NativeDropout", "ToCopy", "Clone", "Alias")
}
"""What may stand between a block's output and the place where its residual is added."""
_VIEWS = ("T", "Transpose", "Permute", "View", "Unsqueeze", "Squeeze", "Expand", "Repeat", "Slice", "Select", "Alias")
_MAPS = ("ToCopy", "Clone", "Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Exp", "Sigmoid", "Softplus", "Tanh")
_FORMS = {f"{name}Backward{version}" for name in (*_VIEWS, *_MAPS) for version in "01"}
"""Another form of the same tensor."""


@dataclass(frozen=True)
class Edge:
    """Which edge of a node is cut, and what goes on in its place; it does not hold the node, whose hook holds it."""

    index: int
    call: int | None
    """The call whose signal goes on there; None: nothing goes on."""
    to_mark: bool = False
    """The edge leads to a mark between two blocks, where signals that cross blocks are read."""


@dataclass(frozen=True)
class Cut:
    """An edge of a node that backward must not follow."""

    node: Node
    edge: Edge


class Paths:
    """The graph behind `roots`, nodes in an order in which what a node is made of comes first."""

    def __init__(self, trace: Trace, roots: Iterable[Node | None]) -> None:
        self.spans, self._inside, self._gates = trace.spans, trace.inside, trace.gates
        self._made = {node: made for span in self.spans for node, made in span.made_of.items()}
        roots = list(roots)
        self._adopt_checkpoints(roots)
        self.call_of = {node: call for call, span in enumerate(self.spans) for node in span.marks}
        self._order = self._made_first([*roots, *(node for span in self.spans for node in span.marks)])
        self.upstream = self._upstream()
        self._learns = self._learning()
        self._feeds = self._fed()
        self._reaches = self._reached()

    def _edges(self, node: Node) -> tuple[tuple[Node | None, int], ...]:
        """A gate at a tap is made of what the tap reads; its other edges carry signals."""
        return node.next_functions[:1] if node in self._gates else node.next_functions

    def children(self, node: Node) -> Iterator[tuple[int, Node, int]]:
        """Edges of a node to others that are not leaves: their number, the node, which of its outputs."""
        for index, (child, output) in enumerate(self._edges(node)):
            if child is not None and not is_leaf(child):
                yield index, child, output

    def cuts(self) -> list[Cut]:
        """All edges that lead around a block, with the signal that a residual edge gets instead."""
        # latest nodes first, as backward goes: what a gradient has come past is known before it goes on
        joined = {self._place_of_joining(call): call for call in range(len(self.spans))}
        brought: dict[Node, int] = dict.fromkeys(self._order, 0)
        found = []
        for node in reversed(self._order):
            if node in self.call_of or self._inside(node) is not None:
                continue
            for index, child, output in self.children(node):
                past = (brought[node] | self.upstream[node]) & ~self.upstream[child]
                call = joined.get(node)
                if call is not None and self._fits(call, node, child, output) and self._around(node, child):
                    found.append(Cut(node, Edge(index, call)))
                elif past & self._feeds[child] and self._learns[child]:
                    found.append(Cut(node, Edge(index, None)))
                else:
                    brought[child] |= past
        return found

    def known(self, *, without: set[Node]) -> list[Cut]:
        """All edges to marks of ours, but for those in `without`: gradients that arrive there have nowhere to go."""
        return [
            Cut(node, Edge(index, None, to_mark=True))
            for node in self._order
            for index, child, _ in self.children(node)
            if child in self._made and child not in without and node not in self.call_of
        ]

    def shared(self) -> bool:
        """Whether several calls read something that learns and that no block made: a condition, for instance."""
        read: set[Node] = set()
        for span in self.spans:
            own: set[Node] = set()
            todo = list(span.entries)
            while todo:
                node = todo.pop()
                if node in self.call_of or is_leaf(node) or node in own:
                    continue
                if node in read and self._learns[node]:
                    return True
                own.add(node)
                todo += self._made_of(node)
            read |= own
        return False

    def checkpoints(self) -> bool:
        """Whether something outside the blocks runs in a reentrant checkpoint."""
        return any(_is_checkpoint(n) and n not in self.call_of and self._inside(n) is None for n in self._order)

    def escapes(self, nodes: Iterable[Node]) -> int | None:
        """A call whose inside `nodes` reach by another way than by what it returned, if there is one."""
        for node in nodes:
            if is_leaf(node):
                continue
            own = self._inside(node)
            for _, child, _ in () if node in self.call_of else self.children(node):
                call = self._inside(child)
                if call not in (None, own) and child not in self.call_of and self._learns[child]:
                    return call
        return None

    def _adopt_checkpoints(self, roots: list[Node | None]) -> None:
        """A block inside reentrant checkpointing has no mark; the checkpoint's node stands for it, made just before."""
        unmarked = [span for span in self.spans if not span.marks]
        if not unmarked:
            return
        nodes = [node for node in self._made_first(roots) if _is_checkpoint(node)]
        for span in unmarked:
            earlier = [node for node in nodes if node._sequence_nr() < span.start]
            if earlier:
                span.marks = [max(earlier, key=lambda node: node._sequence_nr())]

    def _made_of(self, node: Node) -> list[Node]:
        """What a node is made of; for a mark its block's output and what the block received."""
        if node in self._made:
            return [made for made in self._made[node] if made is not None and not is_leaf(made)]
        return [child for _, child, _ in self.children(node)]

    def _made_first(self, roots: Sequence[Node | None]) -> list[Node]:
        """Depth first, with a stack of its own: graphs are deeper than Python lets functions call themselves."""
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
        """See the top of the file; one pass, as what a node is made of comes before it."""
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
            children = [child for child, _ in self._edges(node) if child is not None]
            found[node] = node not in self.call_of and any(is_leaf(c) or found[c] for c in children)
        return found

    def _fed(self) -> dict[Node, int]:
        """See the top of the file; from behind, as what a node is a part of comes after it."""
        found: dict[Node, int] = dict.fromkeys(self._order, 0)
        for node in reversed(self._order):
            calls = found[node] | (1 << self.call_of[node] if node in self.call_of else 0)
            for child in self._made_of(node):
                found[child] |= calls
        first = set(self._first_streams())
        return {node: calls if self.upstream[node] or node in first else 0 for node, calls in found.items()}

    def _reached(self) -> dict[Node, int]:
        """Calls that a node, or something that it is made of since the last mark, feeds."""
        found: dict[Node, int] = {}
        for node in self._order:
            calls = self._feeds[node]
            if node not in self.call_of:
                for child in self._made_of(node):
                    calls |= found[child]
            found[node] = calls
        return found

    def _around(self, node: Node, child: Node) -> int:
        """The calls that an edge leads around, sooner or later; 0 where nothing behind it learns."""
        if child in self.call_of or not self._learns[child]:
            return 0
        return self.upstream[node] & ~self.upstream[child] & self._reaches[child]

    def _fits(self, call: int, node: Node, child: Node, output: int) -> bool:
        return _shape(child, output) == _shape(node, 0) == self.spans[call].shape

    def _first_streams(self) -> Iterator[Node]:
        """What enters a block that no other block feeds, back to the last place where several tensors met."""
        for span in self.spans:
            node = span.stream
            while node is not None and not self.upstream.get(node, 1):
                yield node
                children = [child for _, child, _ in self.children(node) if not self._is_parameter(child)]
                node = children[0] if len(children) == 1 else None

    def _is_parameter(self, node: Node | None) -> bool:
        """Whether a node is a leaf in another form: transposed, sliced, shifted or squashed by itself."""
        while node is not None and node.name() in _FORMS:
            node = next(iter(child for child, _ in node.next_functions if child is not None), None)
        return node is not None and is_leaf(node)

    def _place_of_joining(self, call: int) -> Node | None:
        """The addition that joins a block's output, or the output times a gate, and the residual around the block."""
        node = self.spans[call].marks[0] if self.spans[call].marks else None
        while node is not None:
            users = self._users.get(node, set())
            if len(users) != 1:
                return None
            (node,) = users
            if self._inside(node) is not None or node in self.call_of or node.name() not in _ELEMENTWISE:
                return None
            if any(self._around(node, child) >> call & 1 for _, child, _ in self.children(node)):
                plain = node.name() == "AddBackward0" and node._saved_alpha == 1  # type: ignore[attr-defined]
                return node if plain else None
        return None

    @property
    def _users(self) -> dict[Node, set[Node]]:
        if not hasattr(self, "_users_of"):
            self._users_of: dict[Node, set[Node]] = {}
            for node in self._order:
                for _, child, _ in self.children(node):
                    self._users_of.setdefault(child, set()).add(node)
        return self._users_of


def _is_checkpoint(node: Node) -> bool:
    return type(node).__name__ == "CheckpointFunctionBackward"


def variable_of(node: Node) -> Tensor:
    """The tensor that a leaf's node stands for."""
    variable: Tensor = node.variable  # type: ignore[attr-defined]
    return variable


def is_leaf(node: Node) -> bool:
    """Whether a node stands for a tensor that has no history."""
    return type(node).__name__ == "AccumulateGrad"


def _shape(node: Node, output: int) -> tuple[int, ...]:
    return tuple(node._input_metadata[output].shape)
