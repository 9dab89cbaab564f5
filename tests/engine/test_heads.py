"""Several heads, losses past the tap, and the gradient of the model's input: read, or refused by name."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead, RandomFeedback
from odfa.errors import MatchError
from odfa.project import Gaussian

WIDTH = 6


class Trunk(nn.Module):
    """Blocks, a norm, two heads on it; what is asked for is returned."""

    def __init__(self, mode: str = "both") -> None:
        super().__init__()
        self.embed = nn.Linear(4, WIDTH)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.cls, self.val = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 2)
        self.mode = mode
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number == 1:
                self.kept = x
        x = self.norm(x)
        if self.mode == "hidden":
            return {"logits": self.cls(x), "hidden": x}
        if self.mode == "pooled":
            return self.cls(x), self.val(x.mean(1))
        if self.mode == "cls":
            return self.cls(x), None
        return self.cls(x), self.val(x)


def trunk(mode: str = "both") -> Trunk:
    torch.manual_seed(0)
    return Trunk(mode).double()


X = torch.linspace(-1, 1, 5 * 4, dtype=torch.float64).sin().reshape(5, 4)
TOKENS = torch.linspace(-1, 1, 5 * 7 * 4, dtype=torch.float64).sin().reshape(5, 7, 4)


def _error(y: Tensor) -> Tensor:
    """dL/dy of the loss used here, by hand: L = mean(sin(y)^2)."""
    return (2 * y.sin() * y.cos() / y.numel()).detach()


def _loss(y: Tensor) -> Tensor:
    return y.sin().square().mean()


def _signal(e_ND: Tensor, total: int, block: int) -> Tensor:
    matrix = Gaussian(seed=3).shaped(total, 3 * WIDTH).matrix().double()
    return e_ND @ matrix[:, block * WIDTH : (block + 1) * WIDTH] / WIDTH**0.5


def _bias_gradient(model: Trunk, x: Tensor, block: int, signal: Tensor) -> Tensor:
    with torch.no_grad():
        h = model.embed(x)
        for layer in model.blocks[:block]:
            h = layer(h)
        return (signal * (1 - model.blocks[block](h) ** 2)).flatten(0, -2).sum(0)


@pytest.mark.parametrize("used", ["both", "cls", "val"])
def test_the_errors_of_two_heads_stand_side_by_side(used: str) -> None:
    """Against explicit matrices, also where the loss knows one head only."""
    model = trunk()
    DFA(model, "blocks.*", projection=Gaussian(seed=3), error_at=["cls", "val"])
    for _ in range(2):
        model.zero_grad()
        cls, val = model(X)
        ((_loss(cls) if used != "val" else 0) + (_loss(val) if used != "cls" else 0)).backward()
        row = torch.cat([_error(cls) * (used != "val"), _error(val) * (used != "cls")], dim=1)
        for block in range(3):
            expected = _bias_gradient(model, X, block, _signal(row, 5, block))
            torch.testing.assert_close(model.blocks[block][0].bias.grad, expected)


def test_a_sample_s_error_is_shared_by_its_tokens() -> None:
    model = trunk("pooled")
    DFA(model, "blocks.*", projection=Gaussian(seed=3), error_at=["cls", "val"])
    cls, val = model(TOKENS)
    (_loss(cls) + _loss(val)).backward()
    per_token = _error(val)[:, None].expand(5, 7, 2) / 7
    row = torch.cat([_error(cls), per_token], dim=-1).flatten(0, 1)
    for block in range(3):
        signal = _signal(row, 5, block).reshape(5, 7, WIDTH)
        torch.testing.assert_close(model.blocks[block][0].bias.grad, _bias_gradient(model, TOKENS, block, signal))


def test_a_head_that_does_not_run_has_no_error() -> None:
    model = trunk()
    dfa = DFA(model, "blocks.*", projection=Gaussian(seed=3), error_at=["cls", "val"])
    dfa.backward(sum(map(_loss, model(X))))
    model.zero_grad()
    model.mode = "cls"
    cls, _ = model(X)
    dfa.backward(_loss(cls))
    row = torch.cat([_error(cls), torch.zeros(5, 2)], dim=1)
    for block in range(3):
        expected = _bias_gradient(model, X, block, _signal(row, 5, block))
        torch.testing.assert_close(model.blocks[block][0].bias.grad, expected)


def test_a_head_that_has_never_run_is_named() -> None:
    model = trunk("cls")
    DFA(model, "blocks.*", error_at=["cls", "val"])
    with pytest.raises(MatchError, match="val:output did not run in this forward"):
        _loss(model(X)[0]).backward()


def test_one_head_by_two_names_of_it_equals_one() -> None:
    ours, both = trunk(), trunk()
    DFA(ours, "blocks.*", error_at="cls", unread="allow")
    DFA(both, "blocks.*", error_at=["cls"], unread="allow")
    for model in (ours, both):
        _loss(model(X)[0]).backward()
    for a, b in zip(ours.parameters(), both.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("tap", ["cls", "val", "logits"])
def test_a_loss_on_a_head_that_is_not_read_is_refused_and_the_advice_works(tap: str) -> None:
    model = trunk()
    DFA(model, "blocks.*", error_at=tap)
    with pytest.raises(MatchError, match="read it too") as refused:
        sum(map(_loss, model(X))).backward()
    advice = re.search(r"error_at=(\[[^]]*\])", str(refused.value))
    assert advice is not None
    model = trunk()
    dfa = DFA(model, "blocks.*", error_at=eval(advice[1]))
    dfa.backward(sum(map(_loss, model(X))))
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_told_to_allow_it_the_unread_head_learns_alone() -> None:
    model = trunk()
    DFA(model, "blocks.*", error_at="cls", unread="allow", projection=Gaussian(seed=3))
    cls, val = model(X)
    (_loss(cls) + _loss(val)).backward()
    expected = _bias_gradient(model, X, 0, _signal(_error(cls), 3, 0))
    torch.testing.assert_close(model.blocks[0][0].bias.grad, expected)
    assert model.val.weight.grad.abs().max() > 0


def test_a_loss_on_hidden_states_is_refused() -> None:
    model = trunk("hidden")
    dfa = DFA(model, "blocks.*", error_at="cls")
    dfa.backward(_loss(model(X)["logits"]))  # returning hidden states is no offence
    for _ in range(2):
        output = model(X)
        with pytest.raises(MatchError, match="the loss depends on hidden and not only on cls:output"):
            (_loss(output["logits"]) + _loss(output["hidden"])).backward()


def test_a_loss_on_a_state_that_is_kept_aside_is_refused() -> None:
    model = trunk("cls")
    DFA(model, "blocks.*", error_at="cls")
    logits, _ = model(X)
    with pytest.raises(MatchError, match=r"the loss depends on the output of block blocks\.1"):
        (_loss(logits) + _loss(model.kept)).backward()


def test_auxiliary_losses_of_experts_are_refused_instead_of_lost() -> None:
    from tests.engine.problems import IDS, make

    model, problem = make("mixtral")
    model.config.output_router_logits = True
    DFA(model, problem.blocks)
    with pytest.raises(MatchError, match="the loss depends on"):
        model(input_ids=IDS, labels=IDS, output_router_logits=True).loss.backward()


def test_residual_rules_read_one_head() -> None:
    model = trunk()
    with pytest.raises(MatchError, match=r"use RandomFeedback\(\) for several heads"):
        DFA(model, "blocks.*", rule=AlignedHead(rank=0), error_at=["cls", "val"])
    DFA(model, "blocks.*", rule=RandomFeedback(), error_at=["cls", "val"])


@pytest.mark.parametrize("places", [[], ["cls", "cls"], ["cls", "cls:output"]])
def test_places_are_different_ones(places: list[str]) -> None:
    with pytest.raises(MatchError, match="one place or several different ones"):
        DFA(trunk(), "blocks.*", error_at=places)


def test_angles_are_measured_with_several_heads() -> None:
    model = trunk()
    dfa = DFA(model, "blocks.*", error_at=["cls", "val"])
    with dfa.passthrough():
        sum(map(_loss, model(X))).backward()
    true = torch.cat([p.grad.flatten() for p in model.blocks[2].parameters()]).norm().item()
    with dfa.measure_alignment() as angles:
        sum(map(_loss, model(X))).backward()
    assert len(angles) == 3
    assert angles.norms["blocks.2"][1] == pytest.approx(true)


# The gradient of the input


def _classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def test_a_generator_in_front_is_not_trained_by_the_first_block_unasked() -> None:
    generator, model = nn.Linear(4, 4).double(), _classifier()
    dfa = DFA(model)
    with pytest.raises(MatchError, match=r"dfa.passthrough\(\)") as refused:
        _loss(model(generator(X))).backward()
    assert "input_gradient='none'" in str(refused.value)
    assert "input_gradient='local'" in str(refused.value)
    with dfa.passthrough():
        _loss(model(generator(X))).backward()
    ours = generator.weight.grad.clone()
    dfa.remove()
    generator.zero_grad()
    _loss(model(generator(X))).backward()
    assert torch.equal(ours, generator.weight.grad)


def test_input_gradients_as_told() -> None:
    model, x = _classifier(), X.clone().requires_grad_()
    dfa = DFA(model, input_gradient="none")
    _loss(model(x)).backward()
    assert x.grad is None
    dfa.remove()
    dfa = DFA(model, input_gradient="local", projection=Gaussian(seed=3))
    y = model(x)
    _loss(y).backward()
    signal = _error(y) @ Gaussian(seed=3).shaped(2, 16).matrix().double()[:, :8] / 8**0.5
    with torch.no_grad():
        expected = (signal * (1 - model[1](model[0](x)) ** 2)) @ model[0].weight
    torch.testing.assert_close(x.grad, expected)


def test_an_input_that_asks_for_a_gradient_that_nobody_takes_is_no_offence() -> None:
    model = _classifier()
    DFA(model)
    x = X.clone().requires_grad_()
    gradients = torch.autograd.grad(_loss(model(x)), list(model.parameters()))
    assert all(g.abs().max() > 0 for g in gradients)


# The model changes after attaching


@pytest.mark.parametrize("change", ["append", "replace", "head", "take away"])
def test_changes_after_attaching_are_noticed(change: str) -> None:
    model = trunk()
    dfa = DFA(model, "blocks.*", error_at=["cls", "val"])
    sum(map(_loss, model(X))).backward()
    if change == "append":
        model.blocks.append(nn.Linear(WIDTH, WIDTH).double())
    elif change == "replace":
        model.blocks[1] = nn.Linear(WIDTH, WIDTH).double()
    elif change == "head":
        model.cls = nn.Linear(WIDTH, 4).double()
    else:
        del model.blocks[0]
    told = {"append": r"blocks\.3 was added", "replace": r"blocks\.1 was replaced", "head": "cls was replaced"}
    with pytest.raises(MatchError, match=told.get(change, r"blocks\.\d was")):
        model(X)
    with torch.no_grad():
        model(X)  # evaluation is nobody's concern
    dfa.remove()
    DFA(model, "blocks.*", error_at=["cls", "val"])  # the advice
    sum(map(_loss, model(X))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_second_handle_on_a_wrapper_or_on_a_part_is_refused() -> None:
    model = trunk()
    wrapper = nn.Sequential(model)
    dfa = DFA(model, "blocks.*", error_at=["cls", "val"])
    for other in (wrapper, model.blocks[0]):
        with pytest.raises(MatchError, match="already attached"):
            DFA(other, [m for m in other.modules() if m is not other][-1:], error_at="output")
    dfa.remove()
    DFA(wrapper, "0.blocks.*", error_at=["0.cls", "0.val"])


# Heads that have learned


def _trained_head(steps: int) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
    x = torch.randn(256, 20)
    y = (x @ torch.randn(20, 3)).argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def test_a_trained_head_is_not_replaced_without_a_word() -> None:
    model = _trained_head(60)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(MatchError, match="overwrite_head=True"):
        DFA(model, rule=AlignedHead(rank=1))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    DFA(model, rule=AlignedHead(rank=1), overwrite_head=True)
    assert not torch.equal(model[4].weight, before["4.weight"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(3, 16), (10, 64), (100, 32), (257, 64)])
@pytest.mark.parametrize("start", ["torch", "normal_002", "xavier", "kaiming", "zeros"])
def test_fresh_heads_are_recognised(shape: tuple[int, int], start: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, shape[1]), nn.Tanh(), nn.Linear(shape[1], shape[0]))
    weight = model[2].weight
    {
        "torch": lambda w: None,
        "normal_002": lambda w: nn.init.normal_(w, std=0.02),
        "xavier": nn.init.xavier_normal_,
        "kaiming": nn.init.kaiming_normal_,
        "zeros": nn.init.zeros_,
    }[start](weight)
    DFA(model, "0", rule=AlignedHead(rank=0))
