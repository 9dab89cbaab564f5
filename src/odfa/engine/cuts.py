"""Edges of the autograd graph that a backward pass does not follow, or along which a signal goes instead."""

from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor

from odfa.engine.paths import Cut
from odfa.engine.step import Step
from odfa.engine.trace import Node

Gradients = tuple[Tensor | None, ...]
Instead = Callable[[int, Tensor], Tensor | None]
"""Number of a call and the gradient along its residual edge → what goes on along that edge."""


def install(cuts: Iterable[Cut], step: Step, instead: Instead) -> None:
    """Put hooks on the nodes whose edges are cut; they live as long as the graph does."""
    edges: dict[Node, dict[int, int | None]] = {}
    for cut in cuts:
        edges.setdefault(cut.node, {})[cut.index] = cut.call
    for node, calls in edges.items():
        node.register_hook(partial(_replace, step, calls, instead))


def _replace(
    step: Step, calls: dict[int, int | None], instead: Instead, at_inputs: Gradients, _at_outputs: Gradients
) -> Gradients | None:
    if step.exact:
        return None
    replaced = list(at_inputs)
    for index, call in calls.items():
        natural = replaced[index]
        replaced[index] = None if call is None or natural is None else instead(call, natural)
    return tuple(replaced)
