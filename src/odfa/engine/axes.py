"""Where the batch lies in a block's output, shown by what each sample's output depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from odfa.engine.calls import Call
from odfa.engine.handle import Handle
from odfa.engine.record import Probe
from odfa.engine.step import Step
from odfa.engine.tensors import wide
from odfa.error import leading_shape
from odfa.feedback import Axes, possible_axes

_PROBES = 3
"""Samples (or tokens) whose output is followed back, per axis of the error."""
_OWN_SHARE = 0.5
"""Least share of a sample's squared gradient that its own slice holds; batch statistics let the others see a little."""


class BatchAxes:
    """Looks for the batch in the blocks' outputs in one forward pass, where sizes do not tell.

    A sample's output depends on its own slice of a block's output and not on the others'. Where batch and tokens could
    be taken for one another, blocks hand on leaves that ask for a gradient in this pass, and when the model has run
    the outputs of a few samples are differentiated with respect to them.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self._size: int | None = None

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A recorded forward pass begins."""
        self._size = _first_size([args, dict(kwargs)])

    def watches(self, block: str, shape: tuple[int, ...]) -> bool:
        """Whether this output may have its batch elsewhere than first; known for certain at the tap."""
        if len(shape) < 3 or not self.handle.at_work.doubts(block, shape, None):
            return False
        return shape[0] == shape[1] or shape[0] != self._size or self._says_second

    def watch(self, step: Step, block: str, main: Tensor) -> bool:
        """Whether blocks hand on probes in this pass, from this output on if not before."""
        step.probes.watching = step.probes.watching or self.watches(block, tuple(main.shape))
        return step.probes.watching

    @cached_property
    def _says_second(self) -> bool:
        """Recurrent and attention layers of torch know whether they take batches first."""
        return any(getattr(module, "batch_first", None) is False for module in self.handle.model.modules())

    def settle(self, step: Step) -> None:
        """Write the axes into the calls of `step` where sizes leave them open and data flow shows them."""
        if not step.taps.outputs:
            return
        y, x = max(step.taps.outputs, key=lambda found: len(leading_shape(tuple(found[0].shape))))
        before, step.exact = step.exact, True
        try:
            step.calls = self._shown(step.calls, step.probes.found, y, x)
        finally:
            step.exact = before

    def _shown(self, calls: list[Call], probes: Sequence[Probe], y: Tensor, x: Tensor | None) -> list[Call]:
        """`x` is what the module at the tap read, for outputs whose weights start at zero."""
        # graphs are followed only for blocks whose signals would differ between the readings that their sizes admit
        lead, doubts = leading_shape(tuple(y.shape)), self.handle.at_work.doubts
        open_calls = {call.block: call for call in calls if doubts(call.block, call.shape, lead)}
        possible = {block: possible_axes(call.shape, lead) for block, call in open_calls.items()}
        if not any(possible.values()):
            return calls
        shares: Shares = {} if y.is_meta else _shares(probes, lead, possible, y)
        if not shares and x is not None and x.requires_grad and tuple(x.shape[: len(lead)]) == lead:
            shares = _shares(probes, lead, possible, x)
        axes = {block: _decide(options, shares.get(block, {})) for block, options in possible.items()}
        error_axis = next((shown[0] for shown in axes.values() if shown is not None), 0)
        for block, call in open_calls.items():
            if axes[block] is None and (y.is_meta or not self.watches(block, call.shape)):
                axes[block] = _by_size(possible[block], error_axis)
        return [replace(call, axes=axes.get(call.block)) for call in calls]


Shares = dict[str, dict[Axes, float]]
"""Block → (axis of the error, axis of the block) → least share of an output's gradient in the slice of equal number."""


def _shares(probes: Sequence[Probe], lead: tuple[int, ...], possible: Mapping[str, list[Axes]], y: Tensor) -> Shares:
    """Follow a few outputs back to the blocks in question; outputs that depend on nothing do not count."""
    found: Shares = {}
    for of_error in {axes[0] for options in possible.values() for axes in options}:
        size = lead[of_error]
        for index in sorted({place * (size - 1) // max(1, _PROBES - 1) for place in range(_PROBES)} if size else ()):
            weights = torch.zeros_like(y)
            part = weights.select(of_error, index)
            # weights that differ everywhere: with equal ones the gradients of a normalised output would cancel
            part.copy_(torch.arange(1, part.numel() + 1, device=y.device).cos().reshape(part.shape))
            for block, gradient in _at_blocks(probes, y, weights).items():
                for axes in (axes for axes in possible.get(block, ()) if axes[0] == of_error):
                    others = [axis for axis in range(gradient.ndim) if axis != axes[1]]
                    slices = wide(gradient).square().sum(others)
                    if slices.any():
                        share = (slices[index] / slices.sum()).item()
                        known = found.setdefault(block, {})
                        known[axes] = min(share, known.get(axes, 1.0))
    return found


def _at_blocks(probes: Sequence[Probe], y: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Gradient of the weighted sum of `y` at each block's output, by the chain rule across the blocks, newest first.

    Empty where the graph cannot be differentiated here: inside reentrant checkpointing, or in code compiled to run
    backward once. What is then left open is refused by name.
    """
    at_leaf: dict[int, Tensor] = {}
    shown: dict[str, Tensor] = {}

    def back_from(source: Tensor, gradient: Tensor, earlier: Sequence[Probe]) -> None:
        if not earlier or not source.requires_grad:
            return
        leaves = [probe.leaf for probe in earlier]
        results = torch.autograd.grad(source, leaves, gradient, retain_graph=True, allow_unused=True)
        for leaf, result in zip(leaves, results, strict=True):
            if result is not None:
                at_leaf[id(leaf)] = at_leaf[id(leaf)] + result if id(leaf) in at_leaf else result

    try:
        back_from(y, weights, probes)
        for number in reversed(range(len(probes))):
            probe, gradient = probes[number], at_leaf.get(id(probes[number].leaf))
            if gradient is None:
                continue
            if probe.block is not None:
                shown.setdefault(probe.block, gradient)
            if probe.source is not None:
                back_from(probe.source, gradient, probes[:number])
    except RuntimeError:
        return {}
    return shown


def _decide(possible: Sequence[Axes], shares: Mapping[Axes, float]) -> Axes | None:
    """The axes whose own slices hold all of the gradient, or most; None if there are none, or some of both readings."""
    all_of_it = [axes for axes in possible if shares.get(axes) == 1.0]
    fits = all_of_it or [axes for axes in possible if shares.get(axes, 0.0) > _OWN_SHARE]
    if len({of_error == of_block for of_error, of_block in fits}) != 1:
        return None
    return max(fits, key=lambda axes: shares[axes])


def _by_size(possible: Sequence[Axes], error_axis: int) -> Axes | None:
    """For outputs that gave no reason to look: the first axis, or the only one that fits."""
    likely = [axes for axes in ((error_axis, 0), (0, 0)) if axes in possible]
    return likely[0] if likely else possible[0] if len(possible) == 1 else None


def _first_size(inputs: object) -> int | None:
    """Length of the first tensor with axes, depth first."""
    if isinstance(inputs, Tensor):
        return inputs.shape[0] if inputs.ndim else None
    items = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (tuple, list)) else ()
    return next((size for item in items if (size := _first_size(item)) is not None), None)
