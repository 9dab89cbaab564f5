"""How well the local gradients agree with the true ones."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from odfa.engine.handle import Handle
from odfa.engine.step import Cut, Step
from odfa.error import error_rows
from odfa.errors import MatchError

Gradients = dict[str, Tensor]


class Alignment(Mapping[str, float]):
    """Block → cosine between local and true gradient over all the block's parameters.

    `norms[block]` is (norm of the local gradient, norm of the true gradient). A cosine is NaN where either gradient is
    exactly zero: there is no angle then.
    """

    def __init__(self) -> None:
        self._cosines: dict[str, float] = {}
        self.norms: dict[str, tuple[float, float]] = {}

    def __getitem__(self, block: str) -> float:
        return self._cosines[block]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cosines)

    def __len__(self) -> int:
        return len(self._cosines)

    def __repr__(self) -> str:
        rows = (
            f"{b:<40} {c:+.4f}   |local| {self.norms[b][0]:.3e}   |true| {self.norms[b][1]:.3e}"
            for b, c in self.items()
        )
        return "\n".join(rows)

    def add(self, block: str, local: Gradients, true: Gradients, names: set[str]) -> None:
        """Cosine over `names`, in float64, on gradients divided by their largest entry: none under- or overflows."""
        chosen = sorted(name for name in names if name in local and name in true)
        if not chosen:
            return
        a = torch.cat([local[name].flatten().double() for name in chosen])
        b = torch.cat([true[name].flatten().double() for name in chosen])
        top_a, top_b = a.abs().max(), b.abs().max()
        a, b = a / top_a, b / top_b  # 0 / 0 gives NaN, on purpose
        norm_a, norm_b = torch.linalg.vector_norm(a), torch.linalg.vector_norm(b)
        self._cosines[block] = (a @ b / (norm_a * norm_b)).item()
        self.norms[block] = (
            (norm_a * top_a).nan_to_num().item(),
            (norm_b * top_b).nan_to_num().item(),
        )


class Measurement:
    """One measurement in progress: keeps the cut graph of one forward and differentiates it twice."""

    def __init__(self, handle: Handle) -> None:
        """Get ready.

        Raises:
            MatchError: the rule feeds no block, or an optimiser is fused into backward and would move the weights.
        """
        if handle.rule.wiring == "none":
            raise MatchError(f"rule {handle.rule.name} feeds no block, so there is no angle to measure")
        if any(p._post_accumulate_grad_hooks for p in handle.model.parameters()):
            raise MatchError("a fused optimiser would move the weights; call its remove() before measuring")
        self.handle = handle
        self.alignment = Alignment()
        self._recorded: tuple[Step, Tensor] | None = None

    def record(self, step: Step, grad_y: Tensor) -> None:
        """Called from the gate's backward."""
        self._recorded = (step, grad_y.detach())

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Put every `.grad`, and the feedback's counters, back as they were, whatever happens inside."""
        parameters = list(self.handle.model.parameters())
        kept, state = [p.grad for p in parameters], self.handle.state_dict()
        try:
            for p in parameters:
                p.grad = None
            yield
        finally:
            for p, grad in zip(parameters, kept, strict=True):
                p.grad = grad
            self.handle.restore(state)

    def finish(self) -> None:
        """Fill the alignment from the recorded pass.

        Raises:
            MatchError: no backward pass reached the error.
        """
        if self._recorded is None:
            raise MatchError(
                "measure_alignment() saw no backward pass; run model and loss.backward() inside the context"
            )
        (step, grad_y), self._recorded = self._recorded, None
        trained = {name: p for name, p in self.handle.model.named_parameters() if p.requires_grad}
        with self.handle.linears.true_gradients():
            true = _true(step.cuts, trained)
        local = _local(self.handle, step, grad_y, trained)
        members = self.handle.members
        for block in dict.fromkeys(cut.block for cut in step.cuts if cut.block is not None):
            self.alignment.add(block, local, true, members.blocks.get(block, set()) if members else set())
        step.cuts.clear()


def _true(cuts: list[Cut], trained: Mapping[str, Tensor]) -> Gradients:
    """Chain rule across the cuts, newest first: what backpropagation would have given the blocks.

    Every leaf was made after what its source depends on, so the order of making, reversed, is a valid order.
    """
    found: Gradients = {}
    at_leaf = {id(cut.leaf): cut.leaf.grad for cut in cuts if cut.leaf.grad is not None}
    for cut in reversed(cuts):
        gradient = at_leaf.get(id(cut.leaf))
        if gradient is not None and cut.source.requires_grad:
            for leaf, result in zip(cuts, _differentiate(cut.source, gradient, trained, cuts, found), strict=True):
                _add(at_leaf, id(leaf.leaf), result)
    return found


def _local(handle: Handle, step: Step, grad_y: Tensor, trained: Mapping[str, Tensor]) -> Gradients:
    """What the rule gives the blocks, from the same graph."""
    blocks = [cut for cut in step.cuts if cut.block is not None]
    signals = handle.feedback.signals(error_rows(grad_y, str(handle.tap)), step.calls)
    if handle.rule.wiring == "residual":
        head, last = step.cuts[-1].source, blocks[-1].leaf
        q = signals[0].reshape(head.shape).to(head.dtype)
        signals = list(torch.autograd.grad(head, [last], q, retain_graph=True)) * len(blocks)
    found: Gradients = {}
    for cut, signal in zip(blocks, signals, strict=True):
        if cut.source.requires_grad:
            at_output = signal.reshape(cut.source.shape).to(cut.source.dtype)
            _differentiate(cut.source, at_output, trained, step.cuts, found)
    return found


def _differentiate(
    source: Tensor, gradient: Tensor, trained: Mapping[str, Tensor], cuts: list[Cut], found: Gradients
) -> Sequence[Tensor | None]:
    """Add the parameters' gradients to `found`; return those at the leaves.

    The leaves are always asked for: GroupNorm's backward (torch 2.13, CPU) crashes on channels-last inputs otherwise.
    """
    inputs = [*trained.values(), *(cut.leaf for cut in cuts)]
    results = torch.autograd.grad(source, inputs, gradient, retain_graph=True, allow_unused=True)
    for name, result in zip(trained, results[: len(trained)], strict=True):
        _add(found, name, result)
    return results[len(trained) :]


def _add(sums: dict[Any, Tensor], key: Any, value: Tensor | None) -> None:
    if value is not None:
        sums[key] = sums[key] + value if key in sums else value
