"""Which parameters learn from which signal, read off the autograd graph of a forward pass."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from odfa.engine.step import Step
from odfa.engine.tensors import map_tensors
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
    """Reentrant checkpointing hides a part of the graph; blocks are then taken from the module tree."""

    def merge(self, other: "Membership") -> None:
        """Add what another forward pass showed."""
        for block, names in other.blocks.items():
            self.blocks.setdefault(block, set()).update(names)
        self.behind |= other.behind
        self.ahead |= other.ahead
        self.shapes.update(other.shapes)
        self.hidden |= other.hidden


def trace(model: nn.Module, blocks: dict[str, nn.Module], step: Step, y: Tensor, wiring: str) -> Membership:
    """Walk the graph back from every cut; called while the sources still hold their history.

    Raises:
        MatchError: a block's output reaches the error by another way than being returned, or (residual wiring) the head
            does not read what the last block returns.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    found = Membership()
    for call in step.calls:
        found.shapes[call.block] = call.shape
        if call.deferred:
            found.hidden = True
            found.blocks[call.block] = _inside(blocks[call.block], names)
    seen_calls = [call for call in step.calls if not call.deferred]
    for call, source in zip(seen_calls, step.sources, strict=True):
        nodes = walk([source])
        if any(type(node).__name__ == "CheckpointFunctionBackward" for node in nodes):
            found.hidden = True
            found.blocks.setdefault(call.block, set()).update(_inside(blocks[call.block], names))
        found.blocks.setdefault(call.block, set()).update(_parameters(nodes, names))
    to_error = walk([y])
    leaks = [call.block for call, s in zip(seen_calls, step.sources, strict=True) if s.grad_fn in to_error]
    if leaks:
        raise MatchError(
            f"the output of block {leaks[0]} reaches the error by another way than being returned by it, so its true "
            "gradient would too; return it as a tensor, or in a tuple, list or mapping"
        )
    found.behind = _parameters(to_error, names)
    if wiring == "residual" and step.head_input is not None:
        to_head = walk([step.head_input], {source.grad_fn for source in step.sources})
        gates = any(type(node).__name__ == "_GateBackward" for node in to_head)
        if not (gates or step.measuring or found.hidden):
            raise MatchError("the head does not read what the last block returns; use RandomFeedback() for this model")
        found.behind |= _parameters(to_head, names)
    return found


def ahead_of(model: nn.Module, output: Any, gate_node: object) -> set[str]:
    """Names of the parameters between a gate and the tensors in `output`."""
    names = {id(p): name for name, p in model.named_parameters()}
    tensors: list[Tensor] = []
    map_tensors(output, lambda t: tensors.append(t) or t)  # type: ignore[func-returns-value]
    return _parameters(walk(tensors, {gate_node}), names)


def walk(tensors: Iterable[Tensor], stop: set[Any] | None = None) -> set[Any]:
    """All autograd nodes that a backward pass from `tensors` visits, without going past those in `stop`."""
    stop = {None} | (stop or set())
    seen: set[Any] = set()
    todo: list[Any] = [tensor.grad_fn for tensor in tensors]
    while todo:
        node = todo.pop()
        if node not in seen and node not in stop:
            seen.add(node)
            todo.extend(next_node for next_node, _ in node.next_functions)
    return seen


def _parameters(nodes: set[Any], names: dict[int, str]) -> set[str]:
    variables = (getattr(node, "variable", None) for node in nodes)
    return {names[id(variable)] for variable in variables if id(variable) in names}


def _inside(block: nn.Module, names: dict[int, str]) -> set[str]:
    return {names[id(p)] for p in block.parameters() if p.requires_grad}
