"""Edges of the autograd graph that a backward pass does not follow, or along which a signal goes instead."""

from collections.abc import Iterable
from functools import partial

from torch import Tensor
from torch.autograd.graph import Node

from odfa.engine.paths import Cut
from odfa.engine.step import Step

Gradients = tuple[Tensor | None, ...]


def install(cuts: Iterable[Cut], step: Step) -> None:
    """Put hooks on the nodes whose edges are cut; they live as long as the graph does."""
    edges: dict[Node, dict[int, int | None]] = {}
    for cut in cuts:
        edges.setdefault(cut.node, {})[cut.index] = cut.call
    for node, calls in edges.items():
        node.register_hook(partial(_replace, step, calls))


def _replace(
    step: Step, calls: dict[int, int | None], at_inputs: Gradients, _at_outputs: Gradients
) -> Gradients | None:
    """A node's hook: its gradients, with those along the cut edges replaced by what the wiring sends there."""
    if step.exact:
        return None
    replaced = list(at_inputs)
    for index, call in calls.items():
        natural = replaced[index]
        replaced[index] = None if call is None or natural is None else step.wiring.along_residual(step, call, natural)
    return tuple(replaced)
