"""The engine against explicit matrices, written plainly: both rules, sample-wise and token-wise, to 1e-6 in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead, ElectronicOnly, RandomFeedback
from odfa.project import Gaussian


class Residual(nn.Module):
    """x + tanh(x W^T + b), the smallest residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.linear(x))


class Stream(nn.Module):
    """Embedding, residual blocks, final LayerNorm, head: the shape of a Transformer without attention."""

    def __init__(self, width: int = 6, classes: int = 5, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def batch(lead: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(*lead, 4, dtype=torch.float64), torch.randint(0, 5, lead)


def loss_of(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), y.flatten())


def by_hand(model: Stream, x: Tensor, y: Tensor, signals_for: object) -> dict[str, Tensor]:
    """Explicit matrices only: every gradient written out, no autograd anywhere."""
    with torch.no_grad():
        rows = x.flatten(0, -2)
        h = [rows @ model.embed.weight.T + model.embed.bias]
        tanhs = []
        for block in model.blocks:
            tanhs.append(torch.tanh(h[-1] @ block.linear.weight.T + block.linear.bias))
            h.append(h[-1] + tanhs[-1])
        centred = h[-1] - h[-1].mean(1, keepdim=True)
        deviation = (centred.square().mean(1, keepdim=True) + model.norm.eps).sqrt()
        unit = centred / deviation
        z = unit * model.norm.weight + model.norm.bias
        logits = z @ model.head.weight.T + model.head.bias
        e = (logits.softmax(1) - F.one_hot(y.flatten(), 5)) / len(rows)
        grads = {"head.weight": e.T @ z, "head.bias": e.sum(0)}

        def through_norm(q: Tensor) -> Tensor:
            g = q * model.norm.weight
            return (g - g.mean(1, keepdim=True) - unit * (g * unit).mean(1, keepdim=True)) / deviation

        q_norm, signals = signals_for(e, through_norm)  # type: ignore[operator]
        grads["norm.weight"], grads["norm.bias"] = (q_norm * unit).sum(0), q_norm.sum(0)
        for i, s in enumerate(signals):
            local = s * (1 - tanhs[i].square())
            grads[f"blocks.{i}.linear.weight"], grads[f"blocks.{i}.linear.bias"] = local.T @ h[i], local.sum(0)
        first = signals[0] * (1 - tanhs[0].square())
        into_embed = signals[0] + first @ model.blocks[0].linear.weight  # embedding and first block form one group
        grads["embed.weight"], grads["embed.bias"] = into_embed.T @ rows, into_embed.sum(0)
        return grads


def by_engine(model: Stream, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss_of(model(x), y).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def assert_equal(ours: dict[str, Tensor], naive: dict[str, Tensor]) -> None:
    assert ours.keys() == naive.keys()
    for name in naive:
        torch.testing.assert_close(ours[name], naive[name], rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


LEADS = [(8,), (3, 4)]


@pytest.mark.parametrize("lead", LEADS, ids=["samples", "tokens"])
@pytest.mark.parametrize("shared", [False, True])
def test_random_feedback(lead: tuple[int, ...], shared: bool) -> None:
    torch.manual_seed(0)
    model = Stream().double()
    x, y = batch(lead)
    DFA(model, "blocks.*", projection=Gaussian(seed=7), rule=RandomFeedback(shared=shared))
    matrix = Gaussian(seed=7).shaped(5, 6 if shared else 18).matrix().double()
    slices = [matrix[:, :6]] * 3 if shared else [matrix[:, 6 * i : 6 * i + 6] for i in range(3)]

    def signals(e: Tensor, through_norm: object) -> tuple[Tensor, list[Tensor]]:
        return e @ model.head.weight, [e @ b / math.sqrt(6) for b in slices]

    assert_equal(by_engine(model, x, y), by_hand(model, x, y, signals))


@pytest.mark.parametrize("lead", LEADS, ids=["samples", "tokens"])
def test_aligned_head(lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Stream().double()
    x, y = batch(lead)
    DFA(model, "blocks.*", projection=Gaussian(seed=7), rule=AlignedHead(scale=0.3, rank=0))
    start = 0.3 / math.sqrt(6) * Gaussian(seed=7).shaped(5, 6).matrix().double()
    torch.testing.assert_close(model.head.weight.detach(), start)
    with torch.no_grad():
        model.head.weight += 0.1 * torch.randn_like(model.head.weight)  # the read-out has learned; feedback stays a B e

    def signals(e: Tensor, through_norm: object) -> tuple[Tensor, list[Tensor]]:
        q = e @ start
        return q, [through_norm(q)] * 3  # type: ignore[operator]

    assert_equal(by_engine(model, x, y), by_hand(model, x, y, signals))


@pytest.mark.parametrize("lead", LEADS, ids=["samples", "tokens"])
def test_aligned_head_with_drift_correction(lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Stream().double()
    x, y = batch(lead)
    DFA(model, "blocks.*", projection=Gaussian(seed=7), rule=AlignedHead(scale=0.3, rank=2, every=1))
    start = model.head.weight.detach().clone()
    by_engine(model, x, y)  # the first pass finds nothing to correct
    with torch.no_grad():
        model.head.weight += 0.1 * torch.randn_like(model.head.weight)
        u, s, v = torch.linalg.svd(model.head.weight - start, full_matrices=False)
        correction = u[:, :2] * s[:2] @ v[:2]

    def signals(e: Tensor, through_norm: object) -> tuple[Tensor, list[Tensor]]:
        q = e @ (start + correction)
        return q, [through_norm(q)] * 3  # type: ignore[operator]

    assert_equal(by_engine(model, x, y), by_hand(model, x, y, signals))


@pytest.mark.parametrize("lead", LEADS, ids=["samples", "tokens"])
def test_electronic_only(lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Stream().double()
    x, y = batch(lead)
    DFA(model, "blocks.*", projection=Gaussian(seed=7), rule=ElectronicOnly(scale=0.3, rank=2, every=1))
    u, s, v = torch.linalg.svd(model.head.weight.detach(), full_matrices=False)
    low_rank = u[:, :2] * s[:2] @ v[:2]

    def signals(e: Tensor, through_norm: object) -> tuple[Tensor, list[Tensor]]:
        return e @ low_rank, [through_norm(e @ low_rank)] * 3  # type: ignore[operator]

    assert_equal(by_engine(model, x, y), by_hand(model, x, y, signals))


def test_identity_control_copies_the_top_error() -> None:
    """method=identity: the error at the last block's output goes, unprojected, to every other block."""
    from odfa.project import Identity

    torch.manual_seed(0)
    model = Stream().double()
    x, y = batch((8,))
    DFA(model, "blocks.*", projection=Identity(), rule=RandomFeedback(shared=True), error_at="blocks.2")

    def signals(e: Tensor, through_norm: object) -> tuple[Tensor, list[Tensor]]:
        q = e @ model.head.weight
        return q, [through_norm(q)] * 3  # type: ignore[operator]

    assert_equal(by_engine(model, x, y), by_hand(model, x, y, signals))


def test_sample_error_is_shared_by_tokens() -> None:
    """A per-sample error at a per-token block: each of the T tokens receives 1/T of the sample's signal."""
    torch.manual_seed(0)

    class Pooled(Stream):
        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x).mean(1))

    model = Pooled().double()
    x, y = batch((3, 4))
    y = y[:, 0]
    received: list[Tensor] = []
    dfa = DFA(model, "blocks.*", projection=Gaussian(seed=7))
    taken = dfa.at_work.signals
    dfa.at_work.signals = lambda *a: received.extend(taken(*a)) or received  # type: ignore[method-assign, func-returns-value]
    logits = model(x)
    F.cross_entropy(logits, y).backward()
    e = (logits.detach().softmax(1) - F.one_hot(y, 5)) / 3
    matrix = Gaussian(seed=7).shaped(5, 18).matrix().double()
    for i, signal in enumerate(received):
        expected = (e @ matrix[:, 6 * i : 6 * i + 6] / math.sqrt(6) / 4)[:, None].expand(3, 4, 6)
        torch.testing.assert_close(signal, expected)
