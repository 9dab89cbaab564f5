"""What torch does with a model beside training it: saving, copying, function transforms, batches without a sample."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from odfa.encode import BitPlanes, Sign, Ternary
from odfa.engine import DFA, AlignedHead, ElectronicOnly, RandomFeedback, Shallow
from odfa.engine.rules import AbstractRule
from odfa.errors import MatchError
from odfa.opu import Twin
from odfa.project import AbstractProjection, Encoded, Gaussian, Hadamard, Identity, Optical, Rademacher


def small() -> nn.Module:
    """Blocks that begin with a norm, whose gradients take a way of their own."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.Tanh()) for _ in range(2)]
    return nn.Sequential(*blocks, nn.Linear(6, 3))


X = torch.linspace(-1, 1, 24).sin().reshape(4, 6)


def learn(model: nn.Module) -> list[Tensor | None]:
    model.zero_grad()
    model(X).square().sum().backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=1)], ids=lambda r: r.kind)
def test_a_model_is_saved_whole_with_its_handle_or_as_weights_alone(rule: AbstractRule, trained: bool) -> None:
    model, file, weights = small(), io.BytesIO(), io.BytesIO()
    DFA(model, ["0", "1"], rule=rule)
    if trained:
        learn(model)
    torch.save(model, file)
    torch.save(model.state_dict(), weights)
    expected = learn(model)
    whole = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert DFA.of(whole) is not None
    assert all(torch.equal(a, b) for a, b in zip(learn(whole), expected, strict=True))  # type: ignore[arg-type]
    plain = small()
    plain.load_state_dict(torch.load(io.BytesIO(weights.getvalue()), weights_only=True))
    assert plain.state_dict().keys() == model.state_dict().keys()
    without = io.BytesIO()
    DFA.of(model).remove()  # type: ignore[union-attr]
    torch.save(model, without)
    without.seek(0)
    with torch.serialization.safe_globals([nn.Sequential, nn.LayerNorm, nn.Linear, nn.Tanh]):
        assert DFA.of(torch.load(without, weights_only=True)) is None  # a handle that is removed leaves nothing behind


PROJECTIONS: dict[str, Callable[[], AbstractProjection]] = {
    "gaussian": lambda: Gaussian(seed=0),
    "hadamard": lambda: Hadamard(seed=0),
    "rademacher": lambda: Rademacher(seed=0),
    "identity": Identity,
    "ternary": lambda: Encoded(Gaussian(seed=0), Ternary()),
    "sign": lambda: Encoded(Gaussian(seed=0), Sign()),
    "bit planes": lambda: Encoded(Gaussian(seed=0), BitPlanes()),
    "optical": lambda: Optical(Twin()),
}


@pytest.mark.parametrize("shape", [(0, 6), (0, 5, 6), (3, 0, 6)], ids=str)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_batch_without_a_sample_is_a_step_without_gradient(projection: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    dfa = DFA(model, ["1"], projection=PROJECTIONS[projection]())
    dfa.backward(model(torch.randn(shape)).sum())
    assert [p.grad.abs().sum().item() for p in model.parameters()] == [0.0] * 4  # type: ignore[union-attr]
    assert dfa.spent.frames == 0
    dfa.backward(model(torch.ones(3, *shape[1:-1], 6)).sum())  # and the next one is an ordinary one
    dfa.remove()


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize(
    "rule", [AlignedHead(rank=1), ElectronicOnly(rank=1), Shallow(), RandomFeedback()], ids=lambda r: r.kind
)
def test_no_rule_needs_a_sample(rule: AbstractRule, recompute: Any) -> None:
    model = small()
    DFA(model, ["0", "1"], rule=rule, recompute=recompute)
    model(X[:0]).sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_images_without_a_sample() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3))
    DFA(model, ["1"], error_at="output")
    model(torch.randn(0, 3, 8, 8)).sum().backward()
    assert not model[0].weight.grad.any()


def loss(model: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return functional_call(model, weights, (x,)).square().sum()


TRANSFORMS: dict[str, Callable[[nn.Module, dict[str, Tensor]], Any]] = {
    "grad": lambda m, w: grad(lambda w: loss(m, w, X))(w),
    "gradients per sample": lambda m, w: vmap(grad(lambda w, x: loss(m, w, x[None])), in_dims=(None, 0))(w, X),
    "vmap": lambda m, w: vmap(lambda x: m(x[None])[0])(X),
    "jvp": lambda m, w: jvp(m, (X,), (X,))[1],
}


SCRIPTS = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch, in forward mode


@SCRIPTS
@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_function_transforms_are_refused_and_pass_through(name: str, recompute: Any) -> None:
    model = small()
    weights = {n: p.detach() for n, p in model.named_parameters()}
    expected = TRANSFORMS[name](model, weights)
    dfa = DFA(model, ["0", "1"], recompute=recompute)
    learned = [g.clone() for g in learn(model)]  # type: ignore[union-attr]
    with pytest.raises(MatchError, match=r"dfa\.passthrough\(\)") as refused:
        TRANSFORMS[name](model, weights)
    assert "\n" not in str(refused.value)
    with dfa.passthrough():
        torch.testing.assert_close(TRANSFORMS[name](model, weights), expected)
    assert all(torch.equal(a, b) for a, b in zip(learn(model), learned, strict=True))  # type: ignore[arg-type]


@SCRIPTS
def test_forward_mode_is_refused_and_vmap_runs_without_gradients() -> None:
    model = small()
    plain = vmap(lambda x: model(x[None])[0])(X)
    DFA(model, ["0", "1"])
    with torch.no_grad():
        assert torch.equal(vmap(lambda x: model(x[None])[0])(X), plain)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(MatchError, match="forward-mode"):
        model(torch.autograd.forward_ad.make_dual(X, X))


def test_weights_handed_in_from_outside_learn_as_the_models_own() -> None:
    model = small()
    DFA(model, ["0", "1"])
    expected = learn(model)
    weights = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    loss(model, weights, X).backward()
    assert all(torch.equal(w.grad, g) for w, g in zip(weights.values(), expected, strict=True))  # type: ignore[arg-type]
