"""Cuts inside blocks: attention and MLP learn each from the block's signal."""

import copy

import pytest
import torch
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead, RandomFeedback
from odfa.engine.handle import Recompute
from odfa.engine.rules import AbstractRule
from odfa.errors import MatchError
from tests.engine.problems import make

FAMILIES = {"gpt2": "transformer.h.*.ln_2", "llama": "model.layers.*.post_attention_layernorm"}
RULES: list[AbstractRule] = [RandomFeedback(), AlignedHead(rank=0)]


class _Stopped(nn.Module):
    """The same model with its branches cut by hand."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.detach())
        return out


def _grads(model: nn.Module, loss) -> dict[str, Tensor]:
    model.zero_grad()
    loss(model).backward()
    return {name.replace(".inner", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_those_of_a_model_cut_by_hand(name: str, rule: AbstractRule, recompute: Recompute) -> None:
    model, problem = make(name, torch.float64)
    model.config.use_cache = False
    by_hand = copy.deepcopy(model)
    norm = FAMILIES[name].rpartition(".")[2]
    for block in by_hand.get_submodule(FAMILIES[name].partition(".*")[0]):
        setattr(block, norm, _Stopped(getattr(block, norm)))
    DFA(by_hand, problem.blocks, rule=rule)
    DFA(model, problem.blocks, rule=rule, branches=FAMILIES[name], recompute=recompute)
    ours, theirs = _grads(model, problem.loss), _grads(by_hand, problem.loss)
    assert ours.keys() == theirs.keys()
    for parameter, gradient in theirs.items():
        torch.testing.assert_close(ours[parameter], gradient, msg=lambda m, n=parameter: f"{n}: {m}")


def test_values_are_untouched_and_generation_sees_nothing() -> None:
    model, problem = make("gpt2", torch.float64)
    before = problem.loss(model)
    dfa = DFA(model, problem.blocks, branches=FAMILIES["gpt2"])
    assert torch.equal(problem.loss(model), before)
    with dfa.passthrough():
        through = _grads(model, problem.loss)
    dfa.remove()
    for parameter, gradient in _grads(model, problem.loss).items():
        torch.testing.assert_close(through[parameter], gradient)


@pytest.mark.parametrize("recompute", [False, True, "stream"])
def test_alignment_is_to_the_true_gradient_of_the_whole_model(recompute: Recompute) -> None:
    model, problem = make("gpt2", torch.float64)
    model.config.use_cache = False
    true = _grads(model, problem.loss)
    dfa = DFA(model, problem.blocks, branches=FAMILIES["gpt2"], recompute=recompute)
    local = _grads(model, problem.loss)
    with dfa.measure_alignment() as angles:
        problem.loss(model).backward()
    for block in list(dfa.blocks)[1:]:
        names = sorted(name for name in true if name.startswith(f"{block}."))
        ours, exact = (torch.cat([grads[name].flatten() for name in names]) for grads in (local, true))
        assert angles.norms[block][0] == pytest.approx(ours.norm().item())
        assert angles.norms[block][1] == pytest.approx(exact.norm().item())
        assert angles[block] == pytest.approx(torch.cosine_similarity(ours, exact, dim=0).item())


def test_the_status_names_them() -> None:
    model, problem = make("gpt2")
    dfa = DFA(model, problem.blocks, branches="transformer.h.*.ln_2")
    assert "cut inside blocks before: transformer.h.0.ln_2" in str(dfa)


@pytest.mark.parametrize(
    ("branches", "message"), [("transformer.ln_f", "not inside a block"), ("nothing.*", "matches no module")]
)
def test_branches_that_do_not_fit_are_refused(branches: str, message: str) -> None:
    model, problem = make("gpt2")
    with pytest.raises(MatchError, match=message):
        DFA(model, problem.blocks, branches=branches)
    assert DFA.of(model) is None
