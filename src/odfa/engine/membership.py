"""Which parameters learn from which signal, read off the autograd graph of one forward pass."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from odfa.engine.step import Step


@dataclass
class Membership:
    """Parameter names by what feeds them."""

    blocks: dict[str, set[str]] = field(default_factory=dict)
    """Block → parameters that its signal reaches without crossing another block."""
    behind: set[str] = field(default_factory=set)
    """Parameters between the last block and the error: by true gradient, in residual wiring by the signal (head aside)."""
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
        stop = {source.grad_fn for source in step.sources}
        found.behind |= parameters_behind(step.head_input, names, stop)
    return found


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
