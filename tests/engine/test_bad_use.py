"""Wrong use: refused by name, before anything is touched, with what to do next."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.encode import Ternary
from odfa.engine import DFA, AlignedHead, ElectronicOnly, RandomFeedback, Shallow
from odfa.errors import CheckpointError, ConfigError, MatchError, NonFinite
from odfa.opu import Twin
from odfa.project import Gaussian, Identity, Optical
from tests.engine.problems import Cnn, gradients, make


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ("transformer.g.*", "nearest names are .*transformer.h"),
        ("transformer.h", r"never called itself; name what is called: \['transformer.h.\*'\]"),
        ([], "empty list"),
        (["transformer.h.*", "transformer.h.0"], "matched twice"),
        (["transformer.h.*", "transformer.h.0.mlp"], "lies inside block"),
        ("**", "lies inside block"),
    ],
)
def test_blocks_that_do_not_match(blocks: object, message: str) -> None:
    model, _ = make("gpt2")
    before = hooks(model)
    with pytest.raises(MatchError, match=message):
        DFA(model, blocks)  # type: ignore[arg-type]
    assert hooks(model) == before


def test_foreign_mixed_and_repeated_modules() -> None:
    model, _ = make("gpt2")
    blocks = list(model.transformer.h)
    with pytest.raises(MatchError, match="not inside the model"):
        DFA(model, [nn.Linear(2, 2)])
    with pytest.raises(MatchError, match="patterns only or modules only"):
        DFA(model, [blocks[0], "transformer.h.1"])  # type: ignore[list-item]
    with pytest.raises(MatchError, match="same module twice"):
        DFA(model, [blocks[0], blocks[0]])
    assert hooks(model) == 0


def test_nothing_to_find() -> None:
    with pytest.raises(MatchError, match="no blocks found in Linear"):
        DFA(nn.Linear(3, 3))


@pytest.mark.parametrize("error_at", ["lm_heat", "lm_head:middle", "transformer.h.1.mlp"])
def test_taps_that_do_not_fit(error_at: str) -> None:
    model, _ = make("gpt2")
    with pytest.raises(MatchError, match="error_at"):
        DFA(model, "transformer.h.*", error_at=error_at)
    assert hooks(model) == 0


def test_no_head_behind_the_blocks() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with pytest.raises(MatchError, match="leave 1 out of the blocks"):
        DFA(model, ["0", "1"])
    DFA(model, ["0"], error_at="output")
    model(torch.randn(2, 4)).sum().backward()
    assert model[0].weight.grad.any()


def test_a_tap_that_never_runs_and_blocks_behind_the_tap() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    with pytest.raises(MatchError, match="did not run"):
        _forward(Odd(), ["a"], "unused")
    with pytest.raises(MatchError, match="before any block"):
        _forward(Odd(), ["b"], "a")


def _forward(model: nn.Module, blocks: list[str], error_at: str) -> None:
    DFA(model, blocks, error_at=error_at)
    model(torch.randn(2, 4))


def test_a_block_outside_its_model() -> None:
    model, _ = make("mlp")
    dfa = DFA(model)
    with pytest.raises(MatchError, match="outside the model"):
        model[2](torch.randn(2, 12))
    with torch.no_grad():
        model[2](torch.randn(2, 12))
    with dfa.passthrough():
        model[2](torch.randn(2, 12))


def test_attaching_twice() -> None:
    model, _ = make("mlp")
    DFA(model)
    with pytest.raises(MatchError, match="already attached"):
        DFA(model)


def test_a_failed_forward_leaves_nothing_behind() -> None:
    model, problem = make("gpt2", torch.float64)
    dfa = DFA(model, problem.blocks)
    expected = gradients(model, problem.loss)

    def fail(*_: object) -> None:
        raise RuntimeError("mine")

    breaking = model.transformer.h[2].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="mine"):
        problem.loss(model)
    assert dfa._hooks.step is None
    breaking.remove()
    ours = gradients(model, problem.loss)
    assert all(torch.equal(ours[n], expected[n]) for n in expected)


def test_a_failed_forward_with_recompute_closes_what_it_opened() -> None:
    model, problem = make("bert", torch.float64)
    dfa = DFA(model, problem.blocks, recompute=True)
    expected = gradients(model, problem.loss)

    def fail(*_: object) -> None:
        raise RuntimeError("mine")

    breaking = model.bert.encoder.layer[1].output.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="mine"):
        problem.loss(model)
    breaking.remove()
    assert dfa._hooks.step is None
    ours = gradients(model, problem.loss)
    for n in expected:
        assert (ours[n] is None and expected[n] is None) or torch.equal(ours[n], expected[n])


def test_a_loss_without_gradient_and_one_that_misses_the_tap() -> None:
    model, problem = make("mlp")
    dfa = DFA(model)
    with torch.no_grad():
        loss = problem.loss(model)
    with pytest.raises(MatchError, match="no gradient"):
        dfa.backward(loss)
    problem.loss(model)
    elsewhere = model[7].weight.square().sum()
    with pytest.raises(MatchError, match="does not depend on"):
        dfa.backward(elsewhere)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_or_error_that_is_not_finite(value: float) -> None:
    model, problem = make("mlp")
    dfa = DFA(model)
    with pytest.raises(NonFinite, match="optimiser has not moved"):
        dfa.backward(problem.loss(model) * value)
    with pytest.raises(NonFinite):  # plain spelling: found in the error itself
        (model(torch.full((2, 192), value)) * 1.0).sum().square().backward()
    assert not any(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model[1:6].parameters())


def test_settings_that_do_not_fit_together() -> None:
    model, _ = make("gpt2")
    with pytest.raises(ConfigError, match="encoder of its own"):
        DFA(model, "transformer.h.*", projection=Optical(Twin.ideal()), encoder=Ternary())
    with pytest.raises(ConfigError, match="scale"):
        DFA(model, "transformer.h.*", rule=RandomFeedback(scale=0.0))
    with pytest.raises(ConfigError, match="exact product"):
        DFA(model, "transformer.h.*", rule=AlignedHead(rank=16))
    with pytest.raises(ConfigError, match="every"):
        DFA(model, "transformer.h.*", rule=AlignedHead(rank=1, every=0))
    with pytest.raises(ConfigError, match="rank"):
        DFA(model, "transformer.h.*", rule=ElectronicOnly(rank=0))
    with pytest.raises(MatchError, match="head's output"):
        DFA(model, "transformer.h.*", rule=AlignedHead(rank=1), error_at="head_input")
    assert hooks(model) == 0


def test_tied_embeddings_cannot_be_overwritten_by_an_aligned_head() -> None:
    model, problem = make("gpt2_tied")
    before = model.lm_head.weight.detach().clone()
    with pytest.raises(MatchError, match="tie_word_embeddings=False"):
        DFA(model, problem.blocks, rule=AlignedHead(rank=1))
    assert torch.equal(model.lm_head.weight, before)


def test_one_stream_is_what_the_aligned_head_needs() -> None:
    model = Cnn()
    DFA(model, "stages.*", rule=AlignedHead(rank=1))
    with pytest.raises(MatchError, match=re.escape("use RandomFeedback()")):
        model(torch.randn(2, 3, 8, 8))


def test_identity_feedback_of_another_width() -> None:
    model, problem = make("gpt2")
    DFA(model, problem.blocks, projection=Identity(), rule=RandomFeedback(shared=True))
    with pytest.raises(ConfigError, match="Identity"):
        problem.loss(model).backward()


def test_widths_that_change_between_steps() -> None:
    model = Cnn()
    model.head = nn.LazyLinear(4)
    dfa = DFA(model, "stages.*", error_at="output")
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert dfa.projection.num_inputs == 4
    model.head = nn.LazyLinear(4)
    with pytest.raises(MatchError, match="keep the input size fixed"):
        model(torch.randn(2, 3, 16, 16)).sum().backward()


def test_state_of_another_projection_or_rule_is_refused() -> None:
    model, problem = make("gpt2")
    first = DFA(model, problem.blocks, projection=Gaussian(seed=0))
    problem.loss(model).backward()
    state = first.state_dict()
    first.remove()
    for kwargs in ({"projection": Gaussian(seed=1)}, {"rule": RandomFeedback(shared=True)}, {"rule": Shallow()}):
        other = DFA(model, problem.blocks, **kwargs)  # type: ignore[arg-type]
        with pytest.raises(CheckpointError):
            other.load_state_dict(state)
        other.remove()
    same = DFA(model, problem.blocks, projection=Gaussian(seed=0))
    same.load_state_dict(state)
    assert same.identity == first.identity


def test_reading_a_token_at_the_head_input_is_allowed() -> None:
    model, problem = make("gpt2")
    dfa = DFA(model, problem.blocks, error_at="head_input")
    problem.loss(model).backward()
    assert dfa.projection.num_inputs == 16
    assert F.relu(model.transformer.h[0].mlp.c_fc.weight.grad.abs()).sum() > 0
