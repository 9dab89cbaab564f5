"""The law: between blocks no gradient flows, and what lies inside their range learns from signals only."""

from typing import Self

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from odfa.engine import DFA, AlignedHead, RandomFeedback, Shallow, fuse_optimizer
from odfa.engine.rules import AbstractRule
from odfa.errors import MatchError
from odfa.project import AbstractProjection, Gaussian
from tests.engine.layouts import LAYOUTS, Around, make
from tests.engine.problems import PROBLEMS, gradients
from tests.engine.test_invariants import Oracle, true_signals


class Zeros(AbstractProjection):
    """Answers zeros to every error."""

    identity = "zeros()"

    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        shaped = type(self)()
        shaped.num_inputs, shaped.num_outputs = num_inputs, num_outputs
        return shaped

    def matrix(self) -> Tensor:
        return torch.zeros(self.num_inputs, self.num_outputs)

    def _project(self, e_ND: Tensor) -> Tensor:
        return e_ND.new_zeros(len(e_ND), self.num_outputs)


def _attach(name: str, model: nn.Module, **settings: object) -> DFA:
    return DFA(model, LAYOUTS[name].blocks, **{"error_at": LAYOUTS[name].error_at, **settings})


def _all_zero(model: nn.Module, names: list[str]) -> list[str]:
    return [n for n, p in model.named_parameters() if n in names and p.grad is not None and p.grad.abs().max() > 0]


def _inside(name: str, model: nn.Module) -> list[str]:
    return [n for n, _ in model.named_parameters() if not n.startswith(LAYOUTS[name].behind)]


def test_there_are_enough_layouts() -> None:
    assert len(LAYOUTS) >= 50
    assert sum(layout.outside for layout in LAYOUTS.values()) >= 30


@pytest.mark.parametrize("name", LAYOUTS)
def test_without_signals_nothing_in_front_of_the_last_block_learns(name: str) -> None:
    model, loss, _ = make(name)
    true = gradients(model, loss)
    _attach(name, model, projection=Zeros())
    inside = _inside(name, model)
    assert inside
    for _ in range(2):  # the second pass is traced only where there are ways around blocks
        ours = gradients(model, loss)
        assert _all_zero(model, inside) == []
        for n in set(true) - set(inside):
            if name not in PROBLEMS and true[n] is not None and not n.startswith(("condition.", "gate", "early.")):
                assert torch.equal(ours[n], true[n]), n


@pytest.mark.parametrize("rule", [AlignedHead(rank=0), Shallow()], ids=lambda r: r.kind)
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_for_a_residual_stream_and_without_feedback(name: str, rule: AbstractRule) -> None:
    if rule.kind == "aligned" and ((name in PROBLEMS and not PROBLEMS[name].residual) or name in _NO_STREAM):
        pytest.skip("one residual stream that ends in a head is what this rule is for")
    model, loss, _ = make(name)
    _attach(name, model, projection=Zeros(), rule=rule)
    gradients(model, loss)
    assert _all_zero(model, _inside(name, model)) == []


_NO_STREAM = {"dense", "two towers", "three heads", "recurrent cells", "mixer", "cross attention", "experts"}


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.exact])
def test_fed_with_true_gradients_it_is_backpropagation(name: str) -> None:
    model, loss, _ = make(name)
    true = gradients(model, loss)
    truth: list[Tensor] = []
    dfa = _attach(name, model, rule=Oracle(truth))
    if len(dfa.taps) > 1:
        pytest.skip("the oracle below answers one tap")
    truth.extend(true_signals(model, dfa, loss))
    for _ in range(2):
        ours = gradients(model, loss)
        for n, grad in true.items():
            if grad is not None:
                assert ours[n] is not None, n
                torch.testing.assert_close(ours[n], grad, rtol=1e-9, atol=1e-13, msg=lambda m, n=n: f"{n}: {m}")


@pytest.mark.parametrize("name", LAYOUTS)
def test_everything_that_backpropagation_moves_learns_or_is_named(name: str) -> None:
    model, loss, _ = make(name)
    true = gradients(model, loss)
    dfa = _attach(name, model)
    ours = gradients(model, loss)
    members, unlearned = dfa.members, repr(dfa).partition("no gradient: ")[2]
    assert members is not None
    told = set().union(members.behind, members.ahead, *members.blocks.values())
    for n, grad in true.items():
        moved = ours[n] is not None and ours[n].abs().max() > 1e-12
        if grad is not None and grad.abs().max() > 1e-12:
            assert moved or (n in unlearned and n not in told), n
        assert not moved or n in told, n


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_table_is_right_parameter_by_parameter(name: str) -> None:
    """What is said to learn locally scales with the feedback, what is said to learn by the true gradient does not."""
    model, loss, _ = make(name)
    dfa = _attach(name, model, rule=RandomFeedback(scale=1.0))
    once = {n: g for n, g in gradients(model, loss).items() if g is not None}
    members = dfa.members
    assert members is not None
    dfa.remove()
    _attach(name, model, rule=RandomFeedback(scale=3.0))
    scaled = gradients(model, loss)
    local, exact = set().union(*members.blocks.values()), members.behind | members.ahead
    for n in once.keys() - (local & exact):
        torch.testing.assert_close(scaled[n], (3.0 if n in local else 1.0) * once[n], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_traced_pass_gives_what_any_other_gives(name: str) -> None:
    model, loss, _ = make(name, torch.float32 if name != "mixtral" else torch.float64)
    _attach(name, model, projection=Gaussian(seed=1))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    first = gradients(model, loss)
    model.load_state_dict(state)  # batch norm moved its running statistics
    second = gradients(model, loss)
    for n, grad in first.items():
        assert (grad is None and second[n] is None) or torch.equal(grad, second[n]), n


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("t5", "three heads")])
def test_measured_true_gradients_are_backpropagations(name: str) -> None:
    model, loss, _ = make(name)
    true = gradients(model, loss)
    dfa = _attach(name, model)
    local = gradients(model, loss)
    with dfa.measure_alignment() as angles:
        loss(model).backward()
    assert dfa.members is not None
    for block in angles:
        names = sorted(n for n in dfa.members.blocks[block] if true[n] is not None and local[n] is not None)
        for measured, expected in zip(angles.norms[block], (local, true), strict=True):
            norm = torch.cat([expected[n].flatten() for n in names]).norm().item()
            assert measured == pytest.approx(norm, rel=1e-6), block


# What cannot be cut is refused, and the advice works


class _Checkpointed(nn.Module):
    """A residual outside the blocks, each block inside activation checkpointing."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


_X = torch.linspace(-1, 1, 20).sin().reshape(5, 4)


@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=0), Shallow()], ids=lambda r: r.kind)
def test_a_residual_around_reentrant_checkpoints_is_refused_and_the_advice_works(rule: AbstractRule) -> None:
    model = _Checkpointed(reentrant=True)
    DFA(model, "blocks.*", rule=rule, projection=Zeros())
    with pytest.raises(MatchError, match="use recompute=True or use_reentrant=False"):
        model(_X)
    for advised in (_Checkpointed(reentrant=False), Around(lambda m, i, x, h: x + h)):
        dfa = DFA(advised, "blocks.*", rule=rule, projection=Zeros(), recompute=not isinstance(advised, _Checkpointed))
        advised(
            _X if isinstance(advised, _Checkpointed) else LAYOUTS["residual"].inputs()[0]
        ).square().mean().backward()
        assert _all_zero(advised, [n for n, _ in advised.named_parameters() if n.startswith(("embed", "blocks"))]) == []
        assert dfa.members is not None


@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=0)], ids=lambda r: r.kind)
def test_streaming_a_model_with_residuals_outside_is_refused(rule: AbstractRule) -> None:
    model, loss, _ = make("residual")
    _attach("residual", model, rule=rule, recompute="stream")
    with pytest.raises(MatchError, match="use recompute=True"):
        loss(model)


@pytest.mark.parametrize("name", ["conditioned", "unet", "dit", "cross attention", "t5"])
def test_streaming_gives_the_same_where_blocks_share_what_learns(name: str) -> None:
    found = []
    for recompute in (False, "stream"):
        model, loss, _ = make(name)
        if name == "t5":
            for config in {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values():
                config.use_cache = False
        _attach(name, model, recompute=recompute)
        found.append([gradients(model, loss) for _ in range(2)][1])
    for n, grad in found[0].items():
        assert (grad is None) == (found[1][n] is None), n
        if grad is not None:
            torch.testing.assert_close(found[1][n], grad, rtol=1e-8, atol=1e-12)


def test_streaming_with_fused_updates_of_what_blocks_share_is_refused_and_the_advice_works() -> None:
    for recompute in ("stream", True):
        model, loss, _ = make("conditioned")
        _attach("conditioned", model, recompute=recompute)
        fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=0.1))
        before = model.condition.weight.detach().clone()
        if recompute == "stream":
            with pytest.raises(MatchError, match="use recompute=True"):
                loss(model)
        else:
            loss(model).backward()
        assert torch.equal(model.condition.weight, before) == (recompute == "stream")


@pytest.mark.parametrize("name", ["residual", "pairs, second of each", "dense", "u-net, added", "latents, mlps only"])
@pytest.mark.parametrize("rule", [RandomFeedback(), AlignedHead(rank=0)], ids=lambda r: r.kind)
def test_recomputing_gives_the_same_where_ways_are_cut(name: str, rule: AbstractRule) -> None:
    if rule.kind == "aligned" and name in _NO_STREAM:
        pytest.skip("no residual stream")
    found = []
    for recompute in (False, True):
        model, loss, _ = make(name)
        _attach(name, model, rule=rule, recompute=recompute)
        found.append([gradients(model, loss) for _ in range(2)][1])
    for n, grad in found[0].items():
        assert (grad is None) == (found[1][n] is None), n
        if grad is not None:
            torch.testing.assert_close(found[1][n], grad, rtol=1e-9, atol=1e-13)


def test_the_table_tells_of_ways_around() -> None:
    model, loss, _ = make("pairs, second of each")
    dfa = _attach("pairs, second of each", model)
    gradients(model, loss)
    assert "around the blocks: 4 residuals that get the signal of the block they lead around, 0 other ways" in repr(dfa)
    model, loss, _ = make("dense")
    dfa = _attach("dense", model)
    gradients(model, loss)
    assert "0 residuals that get the signal of the block they lead around, 3 other ways that are cut" in repr(dfa)
