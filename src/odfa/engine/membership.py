"""Which parameters learn from which signal, read off the autograd graph of a traced forward pass."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from odfa.engine.paths import Cut, Paths, is_leaf
from odfa.engine.step import Step
from odfa.engine.tensors import named_tensors
from odfa.engine.trace import Node
from odfa.errors import MatchError


@dataclass
class Membership:
    """Parameter names by what feeds them; grows when blocks run or parameters are trained that were not before."""

    blocks: dict[str, set[str]] = field(default_factory=dict)
    """Block → parameters that its signal reaches without crossing another block."""
    behind: set[str] = field(default_factory=set)
    """Parameters between the last block and the error, by true gradient; in residual wiring, but for the head, by the
    signal on its way."""
    ahead: set[str] = field(default_factory=set)
    """Parameters between the error and what the model returns: by true gradient."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Block → shape of its output."""
    hidden: bool = False
    """Reentrant checkpointing or sharding hides a part of the graph; blocks are then taken from the module tree."""
    unread: dict[str, set[str]] = field(default_factory=dict)
    """Output of the model that depends on blocks but not on a tap → parameters on the way."""
    residuals: int = 0
    """Edges around blocks that get the signal of the block they lead around."""
    severed: int = 0
    """Edges around blocks that get nothing."""
    shared: bool = False
    """Several blocks read something that learns and that no block made."""

    @property
    def around(self) -> bool:
        """Whether the model has ways around its blocks: every pass is traced then, to cut them."""
        return bool(self.residuals or self.severed)

    def merge(self, other: "Membership") -> None:
        """Add what another forward pass showed."""
        for block, names in other.blocks.items():
            self.blocks.setdefault(block, set()).update(names)
        self.behind |= other.behind
        self.ahead |= other.ahead
        self.shapes.update(other.shapes)
        self.hidden |= other.hidden
        self.unread.update(other.unread)
        self.shared |= other.shared
        self.residuals, self.severed = max(self.residuals, other.residuals), max(self.severed, other.severed)


def trace(model: nn.Module, blocks: dict[str, nn.Module], step: Step, wiring: str) -> tuple[Membership, list[Cut]]:
    """Read a traced pass when the model has run.

    Returns:
        What learns from what, and the edges of the graph that must be cut.

    Raises:
        MatchError: a block's output reaches the error by another way than being returned, (residual wiring) the head
            does not read what the last block returns, or a way around the blocks cannot be cut.
    """
    made = step.trace
    assert made is not None
    paths = Paths(made, [*made.ends, *made.sources, made.head_input])
    _refuse_escapes(paths, step)
    cuts = paths.cuts()
    dark = any(call.deferred for call in step.calls)
    if cuts and dark:
        raise MatchError(
            "the model adds a residual outside its blocks, and here blocks run without a graph, so the true gradient "
            "around them cannot be cut; use recompute=True or use_reentrant=False, or make the residual a part of the "
            "blocks"
        )
    names = {id(p): name for name, p in model.named_parameters()}
    found = Membership(hidden=dark, residuals=sum(cut.call is not None for cut in cuts))
    found.severed, found.shared = len(cuts) - found.residuals, paths.shared()
    closed, marks = {(cut.node, cut.index) for cut in cuts}, set(paths.call_of)

    def reached(roots: list[Node], fed: Iterable[Cut] = ()) -> set[Node]:
        across = [cut.node.next_functions[cut.index][0] for cut in fed]
        return walk([*across, *roots], closed, marks)

    with_graph = iter(made.sources)
    for number, call in enumerate(step.calls):
        nodes = reached([] if call.deferred else [next(with_graph)], (cut for cut in cuts if cut.call == number))
        learned = _parameters(nodes, names)
        checkpointed = any(type(node).__name__ == "CheckpointFunctionBackward" for node in nodes)
        if call.deferred or checkpointed or _strangers(nodes, names):
            found.hidden = True
            learned |= _inside(blocks[call.block], names)
        found.shapes[call.block] = call.shape
        found.blocks.setdefault(call.block, set()).update(learned)
    found.behind = _parameters(reached(made.ends), names)
    kept: set[Node] = set()
    if wiring == "residual" and made.head_input is not None:
        to_head, kept = reached([made.head_input]), set(made.spans[-1].marks[:1] if made.spans else ())
        if not (found.hidden or kept & to_head):
            raise MatchError("the head does not read what the last block returns; use RandomFeedback() for this model")
        found.behind |= _parameters(to_head, names)
    reentrant = dark and step.replay is None
    return found, cuts + ([] if reentrant else paths.known(without=kept))


def note_output(found: Membership, model: nn.Module, output: Any, step: Step) -> None:
    """Add what lies between the gates and what the model returned, and outputs that reach blocks past the gates.

    Those depend on what blocks returned, or on something inside of a block (what a router said, for instance).
    """
    assert step.trace is not None
    names = {id(p): name for name, p in model.named_parameters()}
    marks = {node for span in step.trace.spans for node in span.marks}
    for path, tensor in named_tensors(output):
        nodes = walk([tensor.grad_fn], (), step.trace.gates | marks)
        if nodes & step.trace.gates:
            found.ahead |= _parameters(nodes, names)
        past = nodes & marks or any(not is_leaf(n) and step.trace.inside(n) is not None for n in nodes)
        if past and step.trace.gates:
            found.unread[path] = _parameters(nodes, names)


def walk(roots: Iterable[Node], closed: Collection[tuple[Node, int]] = (), stop: Collection[Node] = ()) -> set[Node]:
    """All autograd nodes that a backward pass from `roots` visits, not along closed edges, and not past `stop`."""
    seen: set[Node] = set()
    todo: list[Node] = [root for root in roots if root is not None]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if node not in stop:
            edges = enumerate(node.next_functions)
            todo += [child for index, (child, _) in edges if child is not None and (node, index) not in closed]
    return seen


def _refuse_escapes(paths: Paths, step: Step) -> None:
    call = paths.escapes()
    if call is not None:
        raise MatchError(
            f"the output of block {step.calls[call].block} reaches the error by another way than being returned by it, "
            "so its true gradient would too; return it as a tensor, or in a tuple, list or mapping"
        )


def _parameters(nodes: Iterable[Node], names: dict[int, str]) -> set[str]:
    variables = (node.variable for node in nodes if is_leaf(node))
    return {names[id(variable)] for variable in variables if id(variable) in names}


def _strangers(nodes: Iterable[Node], names: dict[int, str]) -> bool:
    """Whether parameters at work are not those that the model names: sharding gathers them while a block runs."""
    variables = (node.variable for node in nodes if is_leaf(node))
    return any(isinstance(variable, nn.Parameter) and id(variable) not in names for variable in variables)


def _inside(block: nn.Module, names: dict[int, str]) -> set[str]:
    return {names[id(p)] for p in block.parameters() if p.requires_grad}
