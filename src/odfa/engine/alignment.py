"""How well the local gradients agree with the true ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from odfa.engine import membership
from odfa.engine.step import Cut, Step
from odfa.error import error_rows
from odfa.errors import MatchError

if TYPE_CHECKING:
    from odfa.engine.dfa import DFA

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
    """One measurement in progress: keeps the cut graph of one forward and runs two backward passes over it."""

    def __init__(self, handle: "DFA") -> None:
        self.handle = handle
        self.alignment = Alignment()
        self._recorded: tuple[Step, Tensor] | None = None

    def record(self, step: Step, grad_y: Tensor) -> None:
        """Called from the gate's backward."""
        self._recorded = (step, grad_y.detach())

    @contextmanager
    def keep_gradients(self) -> Iterator[None]:
        """Set every `.grad` aside and put it back, whatever happens inside."""
        parameters = list(self.handle.model.parameters())
        kept = [p.grad for p in parameters]
        try:
            for p in parameters:
                p.grad = None
            yield
        finally:
            for p, grad in zip(parameters, kept, strict=True):
                p.grad = grad

    def finish(self) -> None:
        """Fill the alignment from the recorded pass.

        Raises:
            MatchError: no backward pass reached the error.
        """
        if self._recorded is None:
            raise MatchError(
                "measure_alignment() saw no backward pass; run model and loss.backward() inside the context"
            )
        step, grad_y = self._recorded
        self._recorded = None
        names = {id(p): name for name, p in self.handle.model.named_parameters()}
        members: dict[str, set[str]] = {}
        for cut in step.cuts:
            if cut.block is not None:
                members.setdefault(cut.block, set()).update(membership.parameters_behind(cut.source, names))
        true = self._true(step)
        local = self._local(step, grad_y)
        step.cuts.clear()
        for block, parameters in members.items():
            self.alignment.add(block, local, true, parameters)

    def _take_gradients(self) -> Gradients:
        taken = {}
        for name, p in self.handle.model.named_parameters():
            if p.grad is not None:
                taken[name] = p.grad
                p.grad = None
        return taken

    def _true(self, step: Step) -> Gradients:
        """Chain rule across the cuts, newest first: what backpropagation would have given the blocks."""
        self._take_gradients()  # the head's part, which is exact by construction
        for cut in reversed(step.cuts):
            if cut.leaf.grad is not None and cut.source.requires_grad:
                cut.source.backward(cut.leaf.grad, retain_graph=True)  # type: ignore[no-untyped-call]
        return self._take_gradients()

    def _local(self, step: Step, grad_y: Tensor) -> Gradients:
        error = error_rows(grad_y, str(self.handle.tap))
        blocks = [cut for cut in step.cuts if cut.block is not None]
        signals = self.handle.feedback.signals(error, step.calls)
        if self.handle.rule.wiring == "residual":
            signals = self._along_the_stream(step.cuts[-1], blocks, signals[0])
            self._take_gradients()
        for cut, signal in zip(blocks, signals, strict=True):
            if cut.source.requires_grad:
                cut.source.backward(signal.reshape(cut.source.shape).to(cut.source.dtype), retain_graph=True)  # type: ignore[no-untyped-call]
        return self._take_gradients()

    def _along_the_stream(self, head: Cut, blocks: list[Cut], q: Tensor) -> list[Tensor]:
        """q at the head's input, through what lies behind the last block, to all blocks."""
        last = blocks[-1].leaf
        last.grad = None
        head.source.backward(q.reshape(head.source.shape).to(head.source.dtype), retain_graph=True)  # type: ignore[no-untyped-call]
        return [_gradient(last)] * len(blocks)


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None, "the head's input does not depend on the last block"
    return leaf.grad
