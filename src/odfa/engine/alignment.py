"""How well the local gradients agree with the true ones."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from odfa.engine.attributes import remember
from odfa.engine.handle import Handle
from odfa.engine.record import Tie
from odfa.engine.tensors import joined
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
        a, b = (joined([grads[name] for name in chosen]) for grads in (local, true))
        top_a, top_b = a.abs().max(), b.abs().max()
        a, b = a / top_a, b / top_b  # 0 / 0 gives NaN, on purpose
        norm_a, norm_b = torch.linalg.vector_norm(a), torch.linalg.vector_norm(b)
        self._cosines[block] = (a @ b / (norm_a * norm_b)).item()
        self.norms[block] = (
            (norm_a * top_a).nan_to_num().item(),
            (norm_b * top_b).nan_to_num().item(),
        )


class Measurement:
    """One measurement in progress: differentiates the graph of one forward with the signals, then with the truth.

    While measuring, blocks stay connected. When backward comes to the tap, the local gradients are taken first; then
    the same backward pass goes on as backpropagation.
    """

    def __init__(self, handle: Handle) -> None:
        """Get ready.

        Raises:
            MatchError: the rule feeds no block, or an optimiser is fused into backward and would move the weights.
        """
        if not handle.rule.wiring.feeds:
            raise MatchError(f"rule {handle.rule.name} feeds no block, so there is no angle to measure")
        if any(p._post_accumulate_grad_hooks for p in handle.model.parameters()):
            raise MatchError("a fused optimiser would move the weights; call its remove() before measuring")
        self.handle = handle
        self.alignment = Alignment()
        self._roots: list[Tensor] = []
        self._local: Gradients | None = None

    def record(self, tie: Tie, end: Tensor, targets: Sequence[Tensor]) -> None:
        """Called at a tap.

        Raises:
            MatchError: a block ran between two taps.
        """
        if not self._roots or tie.tap == 0:
            self._roots = [end, *targets]
        elif tie.calls:
            raise MatchError("angles are measured where the error is read behind all blocks; choose error_at")

    def take_local(self, grad_y: Tensor | None, signals: Sequence[Tensor]) -> None:
        """Called from the gate's backward: what the rule gives, from the graph that backpropagation goes on through."""
        roots, self._roots = self._roots, []
        wanted = {name: p for name, p in self.handle.model.named_parameters() if p.requires_grad}
        pairs = [
            (root, grad.reshape(root.shape).to(root.dtype))
            for root, grad in zip(roots, [grad_y, *signals], strict=True)
            if grad is not None and root.requires_grad
        ]
        # the graph is kept: after this, backpropagation goes through it for the true gradients
        found = torch.autograd.grad(
            [root for root, _ in pairs],
            list(wanted.values()),
            [grad for _, grad in pairs],
            retain_graph=True,
            allow_unused=True,
        )
        self._local = {name: grad for name, grad in zip(wanted, found, strict=True) if grad is not None}
        self.handle.linears.exact = True  # the true gradient uses each layer's own weights

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Put every `.grad`, and what the feedback keeps, back as they were, whatever happens inside."""
        parameters = list(self.handle.model.parameters())
        put_back = remember(self.handle.at_work, self.handle.model)
        kept, state = [p.grad for p in parameters], self.handle.state_dict()
        try:
            for p in parameters:
                p.grad = None
            yield
        finally:
            for p, grad in zip(parameters, kept, strict=True):
                p.grad = grad
            self.handle.linears.exact = False
            put_back()
            self.handle.restore(state)

    def finish(self) -> None:
        """Fill the alignment from the recorded pass.

        Raises:
            MatchError: no backward pass reached the error.
        """
        members = self.handle.members
        if self._local is None or members is None:
            raise MatchError(
                "measure_alignment() saw no backward pass; run model and loss.backward() inside the context"
            )
        true = {name: p.grad for name, p in self.handle.model.named_parameters() if p.grad is not None}
        for block in self.handle.blocks:
            self.alignment.add(block, self._local, true, members.blocks.get(block, set()))
