"""A model that lies on two devices learns as on one. Its parts take what they get to where they are.

The accelerator is none (`tests.far`): it shows tensors left behind, and its numbers are the processor's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from odfa import DFA, AlignedHead, ElectronicOnly, ExactHead, Gaussian, RandomFeedback, Shallow, fuse_optimizer
from odfa.engine.rules import AbstractRule, Drtp, KolenPollack, LowRankHead
from odfa.engine.wirings import on_devices
from tests.far import CPU, DEVICE, one_accelerator

WIDTH, CLASSES, DEPTH, BATCH, TOKENS = 8, 5, 4, 3, 2
LINEARS, BRANCHES = ["blocks.*.up", "blocks.*.down"], ["blocks.*.norm"]


class _Moved(torch.autograd.Function):
    """`Tensor.to`, whose gradient torch would not bring back from an accelerator that is none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, device: torch.device) -> Tensor:
        ctx.device = x.device
        return x.to(device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.device), None


def _at(weight: Tensor, x: Tensor) -> Tensor:
    moved: Tensor = x if x.device == weight.device else _Moved.apply(x, weight.device)  # type: ignore[no-untyped-call]
    return moved


class Block(nn.Module):
    """A perceptron behind a norm; `outside`: without the residual, which is added around it."""

    def __init__(self, *, outside: bool) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)
        self.outside = outside

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.down(self.up(self.norm(x)).tanh())
        return added if self.outside else x + added


class Model(nn.Module):
    """Embedding, blocks, norm and head, each where its weights are."""

    def __init__(self, *, outside: bool = False, reentrant: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, WIDTH)
        self.blocks = nn.ModuleList([Block(outside=outside) for _ in range(DEPTH)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES, bias=False)
        self.outside, self.reentrant = outside, reentrant

    def forward(self, x_NT: Tensor) -> Tensor:
        h: Tensor = self.embedding(x_NT.to(self.embedding.weight.device))
        for block in self.blocks:
            h = _at(block.norm.weight, h)
            learned = checkpoint(block, h, use_reentrant=True) if self.reentrant else block(h)
            h = h + learned if self.outside else learned
        logits: Tensor = self.head(self.norm(_at(self.norm.weight, h)))
        return logits


def _batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [tuple(torch.randint(CLASSES, (2, BATCH, TOKENS), generator=generator)) for _ in range(3)]  # type: ignore[misc]


def _model(far: Sequence[str], **words: bool) -> Model:
    torch.manual_seed(2)
    model = Model(**words)
    for name in far:
        model.get_submodule(name).to(DEVICE)
    return model


def _loss(model: nn.Module, x_NT: Tensor, y_NT: Tensor) -> Tensor:
    logits = model(x_NT)
    return cross_entropy(logits.flatten(0, 1), y_NT.flatten().to(logits.device))


def _weights(far: Sequence[str], attach: Callable[[Model], DFA], **words: bool) -> dict[str, Tensor]:
    """After three steps."""
    model = _model(far, **words)
    dfa = attach(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x_NT, y_NT in _batches():
        optimizer.zero_grad()
        dfa.targets(y_NT)
        _loss(model, x_NT, y_NT).backward()
        optimizer.step()
    return {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}


FRONT, ENDS = ["embedding", "blocks.0", "blocks.1"], ["blocks.0", "blocks.3", "norm", "head"]
# forward gradients are not among them: torch has no forward mode of norms for an accelerator that is none
RULES: dict[str, Callable[[], AbstractRule]] = {
    "random": RandomFeedback,
    "one for all": lambda: RandomFeedback(shared=True),
    "aligned": lambda: AlignedHead(rank=2, every=2),
    "aligned, hops": lambda: AlignedHead(rank=2, every=2, hops=2),
    "exact": ExactHead,
    "exact, hops": lambda: ExactHead(hops=3),
    "electronic": lambda: ElectronicOnly(rank=2, every=2),
    "low rank": lambda: LowRankHead(rank=2),
    "shallow": Shallow,
    "drtp": Drtp,
    "Kolen-Pollack": KolenPollack,
}
PROJECTED = {"random", "one for all", "aligned", "aligned, hops", "low rank", "drtp", "Kolen-Pollack"}


def _attached(rule: str, **words: Any) -> Callable[[Model], DFA]:
    projection = {"projection": Gaussian(7)} if rule in PROJECTED else {}
    return lambda model: DFA(model, ["blocks.*"], rule=RULES[rule](), **projection, **words)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    _equal(monkeypatch, ENDS, _attached(rule))


@pytest.mark.parametrize("rule", ["random", "aligned"])
def test_an_error_on_the_processor(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    _equal(monkeypatch, FRONT, _attached(rule))


@pytest.mark.parametrize("recompute", [True, "stream"])
@pytest.mark.parametrize("rule", ["random", "aligned", "exact, hops"])
def test_blocks_that_run_again(monkeypatch: pytest.MonkeyPatch, rule: str, recompute: bool | str) -> None:
    _equal(monkeypatch, ENDS, _attached(rule, recompute=recompute))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("aligned", {"linears": LINEARS}),
        ("exact", {"linears": LINEARS, "recompute": "stream"}),
        ("random", {"branches": BRANCHES}),
        ("exact, hops", {"branches": BRANCHES}),
    ],
)
def test_feedback_inside_blocks(monkeypatch: pytest.MonkeyPatch, rule: str, words: dict[str, Any]) -> None:
    _equal(monkeypatch, ENDS, _attached(rule, **words))


@pytest.mark.parametrize("rule", ["random", "aligned", "exact, hops"])
def test_residuals_around_blocks(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    _equal(monkeypatch, ENDS, _attached(rule), outside=True)


@pytest.mark.parametrize("rule", ["random", "aligned"])
def test_blocks_that_others_run_again(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    _equal(monkeypatch, ENDS, _attached(rule), reentrant=True)


def test_a_fused_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(model: Model) -> DFA:
        fuse_optimizer(model, lambda weights: torch.optim.SGD(weights, lr=0.1))
        return _attached("exact", linears=LINEARS)(model)

    _equal(monkeypatch, ENDS, attach)


class Heads(nn.Module):
    """Two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(_at(self.a.weight, h)), self.b(_at(self.b.weight, h))


@pytest.mark.parametrize("far", [["head.a"], ["head.b", "blocks.1"]], ids=["first", "second"])
def test_heads_on_two_devices(monkeypatch: pytest.MonkeyPatch, far: Sequence[str]) -> None:
    found = []
    with one_accelerator(monkeypatch):
        for there in ([], far):
            torch.manual_seed(2)
            model = Model()
            model.head = Heads()  # type: ignore[assignment]
            for name in there:
                model.get_submodule(name).to(DEVICE)
            DFA(model, ["blocks.*"], projection=Gaussian(7), error_at=["head.a", "head.b"])
            a, b = model(_batches()[0][0])
            here = model.embedding.weight
            (_at(here, a.square().mean()) + _at(here, b.sin().mean())).backward()
            found.append({name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() >= {"blocks.0.up.weight", "blocks.3.down.weight"}
    assert all(torch.equal(found[1][name], grad) for name, grad in found[0].items())


def test_a_signal_of_several_blocks_moves_once_to_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with one_accelerator(monkeypatch):
        q, other = torch.ones(2), torch.zeros(2)
        there, here, again, another = on_devices([q, q, q, other], [DEVICE, CPU, DEVICE, DEVICE])
    assert here is q
    assert there is again
    assert (there.device, another.device) == (DEVICE, DEVICE)
    assert torch.equal(another.cpu(), other)


def test_angles_to_the_true_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    with one_accelerator(monkeypatch):
        for far in ([], ENDS):
            model = _model(far)
            with _attached("aligned, hops")(model).measure_alignment() as alignment:
                _loss(model, *_batches()[0]).backward()
            found.append(dict(alignment))
    assert found[1] == found[0] != {}


def _equal(monkeypatch: pytest.MonkeyPatch, far: Sequence[str], attach: Callable[[Model], DFA], **words: bool) -> None:
    with one_accelerator(monkeypatch):
        here, there = _weights([], attach, **words), _weights(far, attach, **words)
    start = dict(_model([], **words).named_parameters())
    assert any(not torch.equal(here[name], weight) for name, weight in start.items())
    for name, weight in here.items():
        assert torch.equal(there[name], weight), name
