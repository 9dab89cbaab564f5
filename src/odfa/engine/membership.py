"""Which parameters learn from which signal, read off the autograd graph of one forward pass."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from odfa.engine.step import Step
from odfa.engine.tensors import map_tensors


@dataclass
class Membership:
    """Parameter names by what feeds them."""

    blocks: dict[str, set[str]] = field(default_factory=dict)
    """Block → parameters that its signal reaches without crossing another block."""
    behind: set[str] = field(default_factory=set)
    """Parameters between the last block and the error, by true gradient; in residual wiring, but for the head, by the
    signal on its way."""
    ahead: set[str] = field(default_factory=set)
    """Parameters between the error and what the model returns: by true gradient."""
    widths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Block → shape of its output."""


def trace(model: nn.Module, step: Step, y: Tensor, wiring: str) -> Membership:
    """Walk the graph back from every cut; called while the sources still hold their history."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = Membership()
    for call, source in zip(step.calls, step.sources, strict=True):
        found.blocks.setdefault(call.block, set()).update(parameters_behind(source, names))
        found.widths[call.block] = call.shape
    found.behind = parameters_behind(y, names)
    if wiring == "residual" and step.head_input is not None:
        stop: set[object] = {source.grad_fn for source in step.sources}
        found.behind |= parameters_behind(step.head_input, names, stop)
    return found


def ahead_of(model: nn.Module, output: Any, gate_node: object) -> set[str]:
    """Names of the parameters between a gate and the tensors in `output`."""
    names = {id(p): name for name, p in model.named_parameters()}
    tensors: list[Tensor] = []
    map_tensors(output, lambda t: tensors.append(t) or t)  # type: ignore[func-returns-value]
    return set().union(*(parameters_behind(t, names, {gate_node}) for t in tensors))


def parameters_behind(tensor: Tensor, names: dict[int, str], stop: set[object] | None = None) -> set[str]:
    """Names of the parameters that a backward pass from `tensor` reaches."""
    seen: set[object] = set(stop or ())
    found: set[str] = set()
    if tensor.grad_fn is None:
        return found
    todo: list[object] = [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in names:
            found.add(names[id(variable)])
        todo.extend(next_node for next_node, _ in getattr(node, "next_functions", ()))
    return found
