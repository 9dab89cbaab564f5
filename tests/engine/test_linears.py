"""Feedback per linear layer: the mean weight of all blocks in place of each block's own."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead, RandomFeedback, fuse_optimizer
from odfa.engine.handle import Recompute
from odfa.engine.rules import AbstractRule
from odfa.errors import MatchError
from tests.engine.problems import Problem, make

BRANCHES = {"gpt2": "transformer.h.*.ln_2", "llama": "model.layers.*.post_attention_layernorm"}
LINEARS = {"gpt2": ("attn.c_proj", "mlp.c_proj"), "llama": ("self_attn.o_proj", "mlp.down_proj")}
RULES: list[AbstractRule] = [RandomFeedback(), AlignedHead(rank=0)]


class _Swapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, own: Tensor, mean_IO: Tensor) -> Tensor:
        ctx.save_for_backward(mean_IO)
        return own.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor, None]:
        return delta @ ctx.saved_tensors[0].T, delta, None


class _ByHand(nn.Module):
    """A linear layer whose input gets the gradient by another matrix, written down naively."""

    def __init__(self, inner: nn.Module, mean_IO: Tensor) -> None:
        super().__init__()
        self.inner, self.mean_IO = inner, mean_IO

    def forward(self, x: Tensor) -> Tensor:
        return _Swapped.apply(x, self.inner(x.detach()), self.mean_IO)


def _in_out(layer: Any) -> Tensor:
    return layer.weight.detach().T if type(layer) is nn.Linear else layer.weight.detach()


def _problem(name: str) -> tuple[nn.Module, Problem]:
    model, problem = make(name, torch.float64)
    model.config.use_cache = False
    return model, problem


def _attach(model: nn.Module, problem: Problem, name: str, **settings: Any) -> DFA:
    linears = [f"{problem.blocks}.{end}" for end in LINEARS[name]]
    return DFA(model, problem.blocks, branches=BRANCHES[name], linears=linears, **settings)


def _moved(model: nn.Module, problem: Problem, name: str) -> None:
    """Layers of one shape start equal; move them apart, as training does."""
    torch.manual_seed(5)
    with torch.no_grad():
        for block in model.get_submodule(problem.blocks.partition(".*")[0]):
            for end in LINEARS[name]:
                weight = block.get_submodule(end).weight
                weight.add_(0.1 * torch.randn_like(weight))


def _gradients(model: nn.Module, problem: Problem) -> dict[str, Tensor]:
    model.zero_grad()
    problem.loss(model).backward()
    return {n.replace(".inner", ""): p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("name", LINEARS)
def test_gradients_are_those_of_a_model_fed_by_hand(name: str, rule: AbstractRule, recompute: Recompute) -> None:
    model, problem = _problem(name)
    _attach(model, problem, name, rule=rule, recompute=recompute)
    _moved(model, problem, name)
    by_hand, _ = _problem(name)
    DFA(by_hand, problem.blocks, rule=rule, branches=BRANCHES[name])
    by_hand.load_state_dict(model.state_dict())
    blocks = list(by_hand.get_submodule(problem.blocks.partition(".*")[0]))
    for end in LINEARS[name]:
        mean_IO = torch.stack([_in_out(block.get_submodule(end)) for block in blocks]).mean(0)
        for block in blocks:
            part, _, key = end.rpartition(".")
            setattr(block.get_submodule(part), key, _ByHand(block.get_submodule(end), mean_IO))
    ours, theirs = _gradients(model, problem), _gradients(by_hand, problem)
    assert ours.keys() == theirs.keys()
    for parameter, gradient in theirs.items():
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-8, atol=1e-12, msg=parameter)


def test_layers_of_one_shape_start_equal() -> None:
    model, problem = _problem("gpt2")
    _attach(model, problem, "gpt2")
    first, *others = model.transformer.h
    for end in LINEARS["gpt2"]:
        assert all(torch.equal(first.get_submodule(end).weight, o.get_submodule(end).weight) for o in others)


@pytest.mark.parametrize("fused", [False, True])
def test_one_product_serves_all_blocks(monkeypatch: pytest.MonkeyPatch, fused: bool) -> None:
    """The same answer for the same question; updates in the middle of backward do not change it."""
    from odfa.engine import products

    calls: list[tuple[int, ...]] = []
    plain = products.times
    monkeypatch.setattr(products, "times", lambda d, m, layout: calls.append(tuple(m.shape)) or plain(d, m, layout))
    model, problem = _problem("gpt2")
    _attach(model, problem, "gpt2", rule=AlignedHead(rank=0), recompute="stream")
    if fused:
        fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=0.1))
    for _ in range(2):
        problem.loss(model).backward()
    assert sorted(calls) == [(16, 16)] * 2 + [(64, 16)] * 2


def test_passthrough_and_the_measured_true_gradient_use_each_layers_own_weights() -> None:
    model, problem = _problem("gpt2")
    dfa = _attach(model, problem, "gpt2", rule=AlignedHead(rank=0))
    _moved(model, problem, "gpt2")
    plain = copy.deepcopy(model)
    DFA.of(plain).remove()
    true = _gradients(plain, problem)
    with dfa.passthrough():
        through = _gradients(model, problem)
    for parameter, gradient in true.items():
        torch.testing.assert_close(through[parameter], gradient)
    local = _gradients(model, problem)
    with dfa.measure_alignment() as angles:
        problem.loss(model).backward()
    for block in list(dfa.blocks)[1:]:  # the first one's signal also teaches the embeddings
        names = sorted(name for name in local if name.startswith(f"{block}."))
        ours, exact = (torch.cat([grads[name].flatten() for name in names]) for grads in (local, true))
        assert angles[block] == pytest.approx(torch.cosine_similarity(ours, exact, dim=0).item())
        assert angles.norms[block][1] == pytest.approx(exact.norm().item())


def test_a_layer_that_is_not_linear_is_refused_and_nothing_has_changed() -> None:
    model, problem = _problem("gpt2")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MatchError, match="LayerNorm, expected a linear layer"):
        DFA(model, problem.blocks, linears="transformer.h.*.ln_1", rule=AlignedHead(rank=0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_would_backpropagate_instead_is_refused() -> None:
    model, problem = _problem("gpt2")
    _attach(model, problem, "gpt2")
    model.transformer.h[1].mlp.c_proj.register_forward_hook(lambda _m, _a, output: output)
    with pytest.raises(MatchError, match="other hooks"):
        problem.loss(model)


def test_an_attached_model_is_pickled_and_copied_after_a_step() -> None:
    model, problem = _problem("gpt2")
    _attach(model, problem, "gpt2", rule=AlignedHead(rank=0))
    ours = _gradients(model, problem)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        theirs = _gradients(twin, problem)
        assert all(torch.equal(ours[name], gradient) for name, gradient in theirs.items())


def test_the_status_names_them() -> None:
    model, problem = _problem("gpt2")
    assert "mean weight of all blocks instead of their own in: transformer.h.0.attn.c_proj" in str(
        _attach(model, problem, "gpt2")
    )
