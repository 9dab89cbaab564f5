"""A head whose logits are never in memory as a whole: the same gradients, signals, light and refusals as with them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import odfa
from odfa.engine import Backprop, Drtp, ForwardGradient, KolenPollack, LinearCrossEntropy, LowRankHead
from odfa.engine.rules import AbstractRule
from odfa.error import HeadSums, head_loss
from odfa.errors import ConfigError, MatchError, NonFinite

B, T, K, V = 4, 7, 12, 61
IGNORED = -100


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(K), nn.Linear(K, 2 * K), nn.Linear(2 * K, K)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Model(nn.Module):
    """A stack of blocks with a norm and a head behind them; attached by "blocks.*"."""

    def __init__(self, *, bias: bool = True, tied: bool = False, cap: bool = False, bare: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(V, K)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm, self.head = nn.Identity() if bare else nn.LayerNorm(K), nn.Linear(K, V, bias=bias)
        if tied:
            self.head.weight = self.embedding.weight
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        for block in self.blocks:
            h = block(h)
        logits = self.head(self.norm(h))
        return torch.tanh(logits) if self.cap else logits


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randint(V, (2, B, T), generator=generator)
    y[1, 3:] = IGNORED
    return x, y


def whole_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x).flatten(0, 1), y.flatten())


def in_rows(rows: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    return lambda model, x, y: LinearCrossEntropy(model, model.head, rows=rows)(y, x)


def trained(
    loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor], rule: AbstractRule | None, *, steps: int = 3,
    model: dict[str, Any] | None = None, **settings: Any,
) -> tuple[list[Tensor], odfa.DFA | None, nn.Module]:  # fmt: skip
    """Losses and all gradients of a few steps in float64."""
    built = Model(**model or {}).double()
    dfa = None if rule is None else odfa.DFA(built, "blocks.*", rule=rule, **settings)
    optimizer = torch.optim.SGD(built.parameters(), lr=0.1)
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(built, *batch(step))
        loss.backward() if dfa is None else dfa.backward(loss)
        found += [loss.detach(), *(torch.zeros(()) if p.grad is None else p.grad.clone() for p in built.parameters())]
        optimizer.step()
    return found, dfa, built


RANKED = {"rank": 2, "every": 1}
CASES: dict[str, tuple[AbstractRule | None, dict[str, Any]]] = {
    "backpropagation": (None, {}),
    "backpropagation, no bias": (None, {"model": {"bias": False}}),
    "backpropagation, tied": (None, {"model": {"tied": True}}),
    "random": (odfa.RandomFeedback(), {}),
    "random, shared": (odfa.RandomFeedback(shared=True), {}),
    "random, tied": (odfa.RandomFeedback(), {"model": {"tied": True}}),
    "random, nothing before the head": (odfa.RandomFeedback(), {"model": {"bare": True}}),
    "aligned, nothing before the head": (odfa.AlignedHead(**RANKED), {"model": {"bare": True}}),
    "random, per sample": (odfa.RandomFeedback(per_sample=("blocks.0",)), {}),
    "random, ternary": (odfa.RandomFeedback(), {"encoder": odfa.Ternary(quantiser="relative_max")}),
    "random, hadamard": (odfa.RandomFeedback(), {"projection": odfa.Hadamard(seed=1)}),
    "random, branches": (odfa.RandomFeedback(), {"branches": "blocks.*.norm"}),
    "random, compiled": (odfa.RandomFeedback(), {"compile": "eager"}),
    "random, error at the head's input": (odfa.RandomFeedback(), {"error_at": "head_input"}),
    "exact": (odfa.ExactHead(), {}),
    "exact, hops": (odfa.ExactHead(hops=2), {}),
    "aligned": (odfa.AlignedHead(**RANKED), {}),
    "aligned, drawn": (odfa.AlignedHead(drawn=2, **RANKED), {}),
    "low rank": (LowRankHead(rank=2), {}),
    "electronic": (odfa.ElectronicOnly(**RANKED), {}),
    "shallow": (odfa.Shallow(), {}),
}


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler warns of itself
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("case", CASES)
def test_every_gradient_is_that_of_the_whole(case: str, recompute: bool | str) -> None:
    rule, settings = CASES[case]
    if rule is None or "compile" in settings:
        if recompute:
            return
    else:
        settings = {**settings, "recompute": recompute}
    expected, _, _ = trained(whole_loss, rule, **settings)
    for rows in (1, 5, 1000):
        close(trained(in_rows(rows), rule, **settings)[0], expected)


class Wide(TorchDispatchMode):
    """How many rows as wide as the vocabulary the results of all operations have."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        shapes = [leaf.shape for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.ndim > 1]
        self.rows |= {shape[:-1].numel() for shape in shapes if shape[-1] == V}
        return result


@pytest.mark.parametrize("case", [case for case in CASES if "compiled" not in case])
def test_logits_and_error_are_never_there_as_a_whole(case: str) -> None:
    rule, settings = CASES[case]
    found = []
    for loss_of in (in_rows(5), whole_loss):
        with Wide() as wide:
            trained(loss_of, rule, steps=2, **settings)
        found.append(max(wide.rows - {K, V}))  # K and V: the head's weight, either way up, and rows of the identity
    assert 5 <= found[0] <= 10  # two patterns of a row, and ten vectors that find the low rank
    assert found[1] >= B * T


def test_gpt2_of_the_transformers_library() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": V, "n_positions": T, "n_embd": K, "n_layer": 2, "n_head": 2}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": None, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **still)).double()
    odfa.DFA(model, "transformer.h.*")
    x, y = batch()
    loss_of = LinearCrossEntropy(model, model.lm_head, rows=3)
    found = []
    for loss in (cross_entropy(model(x).logits.flatten(0, 1), y.flatten()), loss_of(y, input_ids=x, use_cache=False)):
        model.zero_grad()
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    close(*found)


def test_a_transposed_head() -> None:
    transformers = pytest.importorskip("transformers")
    found = []
    for loss_of in (whole_loss, in_rows(3)):
        model = Model()
        model.head = transformers.pytorch_utils.Conv1D(V, K)
        model.double()
        dfa = odfa.DFA(model, "blocks.*", rule=odfa.AlignedHead(rank=1))
        dfa.backward(loss_of(model, *batch()))
        found.append([p.grad for p in model.parameters()])
    close(*found)


def test_evaluation_sums_and_several_passes() -> None:
    model, (x, y) = Model().double(), batch()
    loss_of = LinearCrossEntropy(model, model.head, rows=5)
    odfa.DFA(model, "blocks.*")
    with torch.no_grad():
        nats = cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")
        torch.testing.assert_close(loss_of(y, x, reduction="sum"), nats)
        assert model(x).shape == (B, T, V)  # elsewhere the head gives its logits
        assert loss_of(torch.full_like(y, IGNORED), x).isnan()
    expected = [p.grad for p in trained(whole_loss, odfa.RandomFeedback(), steps=1)[2].parameters()]
    first, second = loss_of(y, x), loss_of(y, x)  # two forwards before a backward, and one graph twice
    first.backward(retain_graph=True)
    second.backward()
    first.backward()
    close([p.grad / 3 for p in model.parameters()], expected)
    odfa.DFA.of(model).remove()
    assert not model.head._forward_hooks
    assert not model.head._forward_pre_hooks


@pytest.mark.parametrize("rule", [odfa.RandomFeedback(), odfa.AlignedHead(rank=1), odfa.ExactHead(hops=1)])
def test_angles_and_passthrough(rule: AbstractRule) -> None:
    found = []
    for loss_of in (whole_loss, in_rows(5)):
        model = Model().double()
        dfa = odfa.DFA(model, "blocks.*", rule=rule)
        with dfa.measure_alignment() as angles:
            dfa.backward(loss_of(model, *batch()))
        with dfa.passthrough():
            dfa.backward(loss_of(model, *batch()))
        found.append([torch.tensor(list(angles.values())), *(p.grad for p in model.parameters())])
        assert all(p.grad is not None for p in model.parameters())
        assert "head.weight" in repr(dfa).partition("true gradient: ")[2].partition("\n")[0]
    close(*found)


def test_light_of_the_same_vectors() -> None:
    spent = []
    for loss_of in (whole_loss, in_rows(5)):
        twin = odfa.Twin.preset("opu-2021", seed=1)
        model = Model()
        dfa = odfa.DFA(model, "blocks.*", rule=odfa.RandomFeedback(shared=True), projection=odfa.Optical(twin))
        dfa.backward(loss_of(model, *batch()))
        spent.append(dfa.spent)
        assert dfa.last.light == dfa.spent
    assert spent[0].frames == spent[1].frames > 0
    assert spent[0].ops_useful == spent[1].ops_useful


@pytest.mark.parametrize("rule", [odfa.RandomFeedback(), odfa.AlignedHead(rank=1), odfa.ExactHead()])
@pytest.mark.parametrize("fused", [False, True])
def test_what_is_not_finite_moves_no_weight(rule: AbstractRule, fused: bool) -> None:
    model = Model()
    dfa = odfa.DFA(model, "blocks.*", rule=rule)
    loss = in_rows(5)(model, *batch())  # finite; what comes then is not
    if fused:
        odfa.fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=0.1))
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(NonFinite):
        dfa.backward(_exploding(loss))
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    with pytest.raises(NonFinite):
        dfa.backward(in_rows(5)(model, *batch()))


class _Exploding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * float("inf")


def _exploding(loss: Tensor) -> Tensor:
    return _Exploding.apply(loss)


def test_fused_updates_stream_and_frozen_parts() -> None:
    found = []
    for loss_of in (whole_loss, in_rows(5)):
        model = Model().double()
        model.head.bias.requires_grad_(False)
        model.norm.requires_grad_(False)
        dfa = odfa.DFA(model, "blocks.*", rule=odfa.AlignedHead(rank=1, every=1), recompute="stream")
        odfa.fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=0.1))
        for step in range(3):
            dfa.backward(loss_of(model, *batch(step)))
        found.append([p.detach() for p in model.parameters()])
    close(*found)


def test_half_precision_and_autocast() -> None:
    for setting in ("weights", "autocast"):
        found = []
        for loss_of in (whole_loss, in_rows(5)):
            model = Model()
            model = model.bfloat16() if setting == "weights" else model
            dfa = odfa.DFA(model, "blocks.*")
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=setting == "autocast"):
                loss = loss_of(model, *batch())
            dfa.backward(loss)
            found.append(torch.cat([p.grad.float().flatten() for p in model.parameters()]))
            assert all(p.grad.dtype == p.dtype for p in model.parameters())
        assert torch.cosine_similarity(*found, dim=0) > 0.999


@pytest.mark.parametrize("rule", [KolenPollack(), ForwardGradient(), Drtp()])
def test_rules_that_read_the_whole_error_are_refused(rule: AbstractRule) -> None:
    model, (x, y) = Model(), batch()
    loss_of = LinearCrossEntropy(model, model.head)
    dfa = odfa.DFA(model, "blocks.*", rule=rule)
    dfa.targets(y)
    with pytest.raises(ConfigError, match=f"rule {rule.name} reads the error as a whole"):
        loss_of(y, x)
    with pytest.raises(ConfigError, match="reads the error as a whole"):
        LinearCrossEntropy(model, model.head)
    assert not Backprop.by_rows


def test_an_error_in_chunks_has_no_matrix() -> None:
    class Whole(odfa.engine.rules.random_feedback.RandomFeedback):
        def start(self, projection: Any, model: Any, head: Any) -> Any:
            feedback = super().start(projection, model, head)
            feedback.projected = lambda error, known: known.project(error.e_ND)  # type: ignore[attr-defined]
            return feedback

    model, (x, y) = Model(), batch()
    dfa = odfa.DFA(model, "blocks.*", rule=Whole())
    with pytest.raises(
        ConfigError, match=r"the error at head:output is made some rows at a time; expected a rule that"
    ):
        dfa.backward(LinearCrossEntropy(model, model.head)(y, x))


def test_bad_use() -> None:
    model, (x, y) = Model(), batch()
    for rows in (0, True, 1.5):
        with pytest.raises(ConfigError, match="rows: expected a positive number of rows"):
            LinearCrossEntropy(model, model.head, rows=rows)
    with pytest.raises(MatchError, match="expected a module of the model"):
        LinearCrossEntropy(model, nn.Linear(2, 2))
    with pytest.raises(MatchError, match=r"expected nn\.Linear or the Conv1D of transformers.*got LayerNorm"):
        LinearCrossEntropy(model, model.norm)
    loss_of = LinearCrossEntropy(model, model.head)
    with pytest.raises(MatchError, match=r"targets: expected \(4, 7\), one class for each row"):
        loss_of(y[:, 1:], x)
    with pytest.raises(MatchError, match="labels: expected none, as LinearCrossEntropy computes the loss"):
        loss_of(y, x, labels=y)
    with pytest.raises(MatchError, match="the head did not run in this forward"):
        LinearCrossEntropy(_Holds(model), model.head)(y, x)
    capped = Model(cap=True)
    with pytest.raises(MatchError, match="the model does not return what its head returns"):
        LinearCrossEntropy(capped, capped.head)(y, x)
    twice = nn.Sequential(model.embedding, square := nn.Linear(K, K), square)
    with pytest.raises(MatchError, match="the head ran twice in one forward"):
        LinearCrossEntropy(twice, square)(y, x)
    assert not model.head._forward_hooks


class _Holds(nn.Module):
    """Holds a head and does not call it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.embedding(x)


@pytest.mark.parametrize("error_at", ["output", ["norm", "head"]])
def test_errors_read_elsewhere(error_at: Any) -> None:
    model, (x, y) = Model(), batch()
    odfa.DFA(model, "blocks.*", error_at=error_at)
    with pytest.raises(MatchError, match="hands over that of one head alone"):
        LinearCrossEntropy(model, model.head)(y, x)


def test_a_loss_of_the_logits_that_are_not_there() -> None:
    from odfa.engine.withheld import withholding

    model, (x, _) = Model(), batch()
    odfa.DFA(model, "blocks.*")
    with withholding(model.head):
        logits = model(x)
    with pytest.raises(MatchError, match="a loss depends on the logits of a pass in which LinearCrossEntropy"):
        logits.sum().backward()


def test_the_loss_alone_has_the_gradients_of_torch() -> None:
    torch.manual_seed(3)
    h, w, b = (torch.randn(*size, dtype=torch.float64) for size in ((9, K), (V, K), (V,)))
    y = torch.randint(V, (9,))
    for tensor in (h, w, b):
        tensor.requires_grad_()
    for reduction in ("mean", "sum"):
        sums = HeadSums(h_NK=h, w_VK=w, b_V=b, target_N=y, rows=4, ignored=IGNORED, dtype=torch.float64)
        found = torch.autograd.grad(head_loss(sums, reduction), (h, w, b))
        close(list(found), list(torch.autograd.grad(cross_entropy(h @ w.T + b, y, reduction=reduction), (h, w, b))))
