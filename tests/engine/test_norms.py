"""Gradients of norms from the weight gradients of the layers that read them: autograd's own, at less work."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead, RandomFeedback
from odfa.engine.handle import Recompute
from odfa.engine.membership import walk
from odfa.engine.norms import NormReaders
from tests.engine.problems import PROBLEMS, Problem, make

BRANCHES = {"gpt2": "transformer.h.*.ln_2", "llama": "model.layers.*.post_attention_layernorm"}


def _shaken(name: str) -> tuple[nn.Module, Problem]:
    """Scales and shifts away from their start values 1 and 0, where half of the formula would be idle."""
    model, problem = make(name, torch.float64)
    if hasattr(model, "config"):
        model.config.use_cache = False
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model, problem


def _gradients(model: nn.Module, problem: Problem) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    problem.loss(model).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _attach(model: nn.Module, problem: Problem, patch: pytest.MonkeyPatch, *, short: bool, **settings) -> None:
    with patch.context() as without:
        if not short:
            without.setattr(NormReaders, "attach", lambda _self: [])
        DFA(model, problem.blocks, **settings)


def _compare(model: nn.Module, problem: Problem, patch: pytest.MonkeyPatch, **settings) -> None:
    """Element by element, with and without the short way."""
    plain = copy.deepcopy(model)
    _attach(model, problem, patch, short=True, **settings)
    _attach(plain, problem, patch, short=False, **settings)
    ours, theirs = _gradients(model, problem), _gradients(plain, problem)
    assert ours.keys() == theirs.keys()
    for parameter, gradient in theirs.items():
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-8, atol=1e-10, msg=parameter)


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize("cut_inside", [False, True])
@pytest.mark.parametrize("name", BRANCHES)
def test_every_gradient_is_that_of_autograd(name: str, cut_inside: bool, recompute: Recompute, monkeypatch) -> None:
    model, problem = _shaken(name)
    branches = BRANCHES[name] if cut_inside else ()
    _compare(model, problem, monkeypatch, rule=AlignedHead(rank=0), recompute=recompute, branches=branches)


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_architecture_keeps_its_gradients(name: str, monkeypatch) -> None:
    _compare(*_shaken(name), monkeypatch, rule=RandomFeedback())


def _shortened(model: nn.Module, output: Tensor) -> int:
    """Layers in the graph of a block's output whose input gradient is not computed."""
    return sum(type(node).__name__ == "_ReaderBackward" for node in walk([output.grad_fn]))


class _Gpt2Block(nn.Module):
    """One block of a GPT-2 with a head, as a model of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.block = make("gpt2", torch.float64)[0].transformer.h[0]
        self.head = nn.Linear(16, 3).double()
        self.seen: Tensor | None = None

    def forward(self, x_NTD: Tensor) -> Tensor:
        return self.head(self.block(x_NTD))


def _ran(change: Callable[[nn.Module], object] = lambda _model: None, *, branches: str = "block.ln_2") -> int:
    """How many layers of the block take the short way after a change."""
    torch.manual_seed(0)
    model = _Gpt2Block()
    found: list[int] = []
    change(model)
    model.block.register_forward_hook(lambda _m, _a, output: found.append(_shortened(model, output)))
    DFA(model, ["block"], branches=branches)
    model(torch.randn(2, 5, 16, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    return found[0]


def test_attention_and_mlp_read_their_norms_the_short_way() -> None:
    assert _ran() == 2


def _zero_scale(model: nn.Module) -> None:
    with torch.no_grad():
        model.block.ln_1.weight[3] = 0.0


def _watched(model: nn.Module) -> None:
    model.block.attn.c_attn.register_forward_hook(lambda _m, _a, output: 2 * output)


def _frozen(model: nn.Module) -> None:
    model.block.attn.c_attn.weight.requires_grad_(False)


@pytest.mark.parametrize(
    ("change", "short"), [(_zero_scale, 0), (_watched, 1), (_frozen, 1)], ids=["zero scale", "user's hook", "frozen"]
)
def test_the_usual_way_where_the_formula_does_not_hold(change: Callable[[nn.Module], object], short: int) -> None:
    assert _ran(change) == short


def test_a_norm_that_multiplies_by_one_plus_its_weight_is_left_alone() -> None:
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    def readers(norm: nn.Module) -> int:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        return len(NormReaders([nn.Sequential(norm, nn.Linear(8, 8))]).attach())

    assert readers(LlamaRMSNorm(8)) > 0
    assert readers(GemmaRMSNorm(8)) == 0
