"""Edges of the autograd graph that a backward pass does not follow, or along which a signal goes instead."""

from collections.abc import Iterable, Sequence
from functools import partial

from torch import Tensor
from torch.autograd.graph import Node

from odfa.engine.paths import Cut, Edge
from odfa.engine.step import Step

Gradients = tuple[Tensor | None, ...]


def install(cuts: Iterable[Cut], step: Step) -> None:
    """Put hooks on the nodes whose edges are cut; they live as long as the graph does."""
    edges: dict[Node, list[Edge]] = {}
    for cut in cuts:
        edges.setdefault(cut.node, []).append(cut.edge)
    for node, at_node in edges.items():
        node.register_hook(partial(_replace, step, at_node))


def _replace(step: Step, at_node: Sequence[Edge], at_inputs: Gradients, _at_outputs: Gradients) -> Gradients | None:
    """A node's hook: its gradients, with those along the cut edges replaced by what the wiring sends there."""
    if step.exact:
        return None
    replaced = list(at_inputs)
    for edge in at_node:
        natural = replaced[edge.index]
        if edge.to_mark and step.wiring.crosses:
            continue
        replaced[edge.index] = None
        if edge.call is not None and natural is not None:
            replaced[edge.index] = step.wiring.along_residual(step, edge.call, natural)
    return tuple(replaced)
