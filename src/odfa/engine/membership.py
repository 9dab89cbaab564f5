"""Which parameters learn from which signal, read off the autograd graph of a traced forward pass."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from odfa.engine.paths import Cut, Paths, is_leaf, variable_of
from odfa.engine.step import Step
from odfa.engine.tensors import named_tensors
from odfa.errors import MatchError

_CUT = ("_GateBackward", "_MarkBackward", "_ChainedBackward", "CheckpointFunctionBackward")
"""Where the graph is cut, or a block may stand, in passes that are not traced."""


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
    checkpoints: bool = False
    """Modules between blocks run in reentrant checkpoints, which build a graph only for inputs that ask for one."""
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
        self.checkpoints |= other.checkpoints
        self.residuals, self.severed = max(self.residuals, other.residuals), max(self.severed, other.severed)


def trace(model: nn.Module, blocks: dict[str, nn.Module], step: Step, output: Any) -> tuple[Membership, list[Cut]]:
    """Read a traced pass when the model has run.

    Returns:
        What learns from what, and the edges of the graph that must be cut.

    Raises:
        MatchError: a block's output reaches the error by another way than being returned, (residual wiring) the head
            does not read what the last block returns, or a way around the blocks cannot be cut.
    """
    made = step.trace
    assert made is not None
    returned = [tensor.grad_fn for _, tensor in named_tensors(output)]
    paths = Paths(made, [*made.ends, *made.sources, made.head_input, *returned])
    _refuse_escapes(paths, step)
    cuts = paths.cuts()
    # without a mark: a block that ran under no_grad, and learns nothing in this pass
    dark = [call.deferred and bool(span.marks) for call, span in zip(step.calls, made.spans, strict=True)]
    if cuts and any(dark):
        raise MatchError(
            "the model adds a residual outside its blocks, and here blocks run without a graph, so the true gradient "
            "around them cannot be cut; use recompute=True or use_reentrant=False, or make the residual a part of the "
            "blocks"
        )
    names = {id(p): name for name, p in model.named_parameters()}
    found = Membership(hidden=any(dark), residuals=sum(cut.edge.call is not None for cut in cuts))
    found.severed, found.shared = len(cuts) - found.residuals, paths.shared()
    found.checkpoints = paths.checkpoints()
    closed, marks = {(cut.node, cut.edge.index) for cut in cuts}, set(paths.call_of)

    # a signal reaches what lies behind its block's output, and what lies along a residual that gets the same signal
    def reached(roots: Sequence[Node | None], fed: Iterable[Cut] = ()) -> set[Node]:
        across = [cut.node.next_functions[cut.edge.index][0] for cut in fed]
        return walk([*across, *roots], closed, marks)

    with_graph = iter(made.sources)
    for number, call in enumerate(step.calls):
        if call.deferred and not dark[number]:
            continue
        nodes = reached([] if call.deferred else [next(with_graph)], (cut for cut in cuts if cut.edge.call == number))
        learned = _parameters(nodes, names)
        checkpointed = any(type(node).__name__ == "CheckpointFunctionBackward" for node in nodes)
        # the graph does not show all parameters of such a block, so its own are taken from the module tree
        if call.deferred or checkpointed or _strangers(nodes, names):
            found.hidden = True
            learned |= _inside(blocks[call.block], names)
        found.shapes[call.block] = call.shape
        found.blocks.setdefault(call.block, set()).update(learned)
    found.behind = _parameters(reached(made.ends), names)
    kept: set[Node] = set()
    if made.head_input is not None:
        to_head, kept = reached([made.head_input]), set(made.spans[-1].marks[:1] if made.spans else ())
        if not (found.hidden or kept & to_head):
            raise MatchError("the head does not read what the last block returns; use RandomFeedback() for this model")
        found.behind |= _parameters(to_head, names)
    return found, cuts + paths.known(without=kept)


def note_output(found: Membership, model: nn.Module, output: Any, step: Step, cuts: list[Cut]) -> None:
    """Add what lies between the gates and what the model returned, and outputs that reach blocks past the gates.

    Those depend on what blocks returned, or on something inside of a block (what a router said, for instance).
    """
    assert step.trace is not None
    names = {id(p): name for name, p in model.named_parameters()}
    marks = {node for span in step.trace.spans for node in span.marks}
    closed = {(cut.node, cut.edge.index) for cut in cuts if cut.node.next_functions[cut.edge.index][0] not in marks}
    for path, tensor in named_tensors(output):
        nodes = walk([tensor.grad_fn], closed, step.trace.gates | marks)
        found.ahead |= _parameters(nodes, names)
        past = nodes & marks or any(not is_leaf(n) and step.trace.inside(n) is not None for n in nodes)
        if past and step.trace.gates:
            found.unread[path] = _parameters(nodes, names)


def leaves_behind(reads: Iterable[Node | None]) -> list[Tensor]:
    """What the error reaches from the taps without meeting a block, in a pass that is not traced."""
    seen: set[Node] = set()
    todo, found = [node for node in reads if node is not None], []
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if is_leaf(node):
            found.append(variable_of(node))
        elif node.name() not in _CUT:
            todo += [child for child, _ in node.next_functions if child is not None]
    return found


def walk(
    roots: Iterable[Node | None], closed: Collection[tuple[Node, int]] = (), stop: Collection[Node | None] = ()
) -> set[Node]:
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
    made = step.trace
    assert made is not None
    call = paths.escapes(walk([*made.ends, *made.sources, made.head_input], stop=set(paths.call_of)))
    if call is not None:
        raise MatchError(
            f"the output of block {step.calls[call].block} reaches the error by another way than being returned by it, "
            "so its true gradient would too; return it as a tensor, or in a tuple, list or mapping"
        )


def _parameters(nodes: Iterable[Node], names: dict[int, str]) -> set[str]:
    variables = (variable_of(node) for node in nodes if is_leaf(node))
    return {names[id(variable)] for variable in variables if id(variable) in names}


def _strangers(nodes: Iterable[Node], names: dict[int, str]) -> bool:
    """Whether parameters at work are not those that the model names: sharding gathers them while a block runs."""
    variables = (variable_of(node) for node in nodes if is_leaf(node))
    return any(isinstance(variable, nn.Parameter) and id(variable) not in names for variable in variables)


def _inside(block: nn.Module, names: dict[int, str]) -> set[str]:
    return {names[id(p)] for p in block.parameters() if p.requires_grad}
