"""Rules and wirings: what they declare, what is refused, and that one of a user's own needs no edit of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead, Backprop, ElectronicOnly, ExactHead, LowRankHead, RandomFeedback, Shallow
from odfa.engine.record import Record, Tie
from odfa.engine.rules import AbstractFeedback, AbstractRule, Call
from odfa.engine.rules.base import Need
from odfa.engine.wirings import Direct
from odfa.errors import ConfigError
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection, Gaussian
from odfa.settings import apply, kinds_of


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def loss_of(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    return F.cross_entropy(model(x), torch.arange(6) % 3)


def test_kinds_are_the_files_of_the_room() -> None:
    kinds = kinds_of(AbstractRule)  # type: ignore[type-abstract]
    assert {word: kind.__name__ for word, kind in kinds.items()} == {
        "aligned": "AlignedHead",
        "backprop": "Backprop",
        "drtp": "Drtp",
        "electronic": "ElectronicOnly",
        "exact": "ExactHead",
        "forward_gradient": "ForwardGradient",
        "kolen_pollack": "KolenPollack",
        "low_rank": "LowRankHead",
        "random": "RandomFeedback",
        "shallow": "Shallow",
    }
    moved = {"error", "optimiser step"}
    more = {
        "drtp": {"targets"},
        "kolen_pollack": moved | {"block output"},
        "low_rank": moved,
        "forward_gradient": moved | {"forward products"},
    }
    for word, kind in kinds.items():
        assert kind.needs == more.get(word, {"error"})
        assert kind.label
        assert kind.colour.startswith("#")
    assert {word for word, kind in kinds.items() if kind.projects} == {
        "random",
        "aligned",
        "electronic",
        "exact",
        "drtp",
        "kolen_pollack",
        "low_rank",
        "forward_gradient",
    }
    assert apply(RandomFeedback(), ["scale=0.5"]) == RandomFeedback(scale=0.5)


def test_backpropagation_is_no_rule_to_attach() -> None:
    model = net()
    with pytest.raises(ConfigError, match="train the model without DFA"):
        DFA(model, rule=Backprop())
    assert DFA.of(model) is None


@dataclass(frozen=True, kw_only=True)
class Weather(AbstractRule, kind="from the weather"):
    """Needs what the engine does not supply."""

    wiring = Direct
    needs: frozenset[Need] = frozenset({"error", "weather"})  # type: ignore[misc, arg-type]
    label = "weather"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        raise AssertionError("it is refused before")


def test_a_rule_that_needs_what_nobody_supplies_is_refused() -> None:
    model = net()
    with pytest.raises(ConfigError, match=r"DFA cannot give a rule the weather, .* expected some of block input, "):
        DFA(model, rule=Weather())
    assert DFA.of(model) is None


@pytest.mark.parametrize("rule", [AlignedHead, ElectronicOnly, LowRankHead])
def test_rank_is_an_eighth_of_the_heads_smaller_side(rule: type[AlignedHead | ElectronicOnly | LowRankHead]) -> None:
    lowest = rule().lowest_rank
    assert rule().rank_of(num_outputs=100, width=64) == 8
    assert rule().rank_of(num_outputs=24, width=64) == 3
    assert rule().rank_of(num_outputs=3, width=64) == lowest
    assert rule(rank=2).rank_of(num_outputs=100, width=64) == 2
    for rank in (lowest, 9):
        rule(rank=rank).check(num_outputs=10, width=64)
    for rank in (lowest - 1, 10, 64):
        of_head = rf"on a head of 10 x 64 expects {lowest} to 9 .*, got {rank}"
        with pytest.raises(ConfigError, match=of_head if rank >= 0 else "rank: expected 0 to .*, got -1"):
            rule(rank=rank).check(num_outputs=10, width=64)


def test_the_rank_is_checked_before_the_head_is_touched() -> None:
    model = net()
    before = model[4].weight.clone()
    with pytest.raises(ConfigError, match="on a head of 3 x 8 expects 0 to 2"):
        DFA(model, rule=AlignedHead(rank=3))
    assert torch.equal(model[4].weight, before)
    assert "no electronic part" in repr(DFA(model, rule=AlignedHead()))  # an eighth of 3


def test_what_is_electronic_is_said_by_the_rule() -> None:
    shape = {"num_outputs": 100, "width": 64}
    said = [
        rule.electronic("all but light", **shape)
        for rule in (RandomFeedback(), AlignedHead(), AlignedHead(rank=0), ElectronicOnly(), ExactHead(), Shallow(),
                     LowRankHead(hops=1), LowRankHead(rank=0))
    ]  # fmt: skip
    assert said == [
        "all but light",
        "all but light, with an electronic correction of rank 8 every 20 steps",
        "all but light, no electronic correction (rank 0)",
        "all: correction of rank 8 every 20 steps alone",
        "all: exact product of the head and the error, a bound",
        "all: true gradient of the head, blocks do not learn",
        "all but light, with rank 8 that the head learns within, and 1 hop of credit across the blocks",
        "all but light, the head stays at its start (rank 0)",
    ]


class OneForAll(Direct):
    """A wiring of one's own: one signal at every block's output, whatever lies behind the last block."""

    name = "one for all"

    def names(self, calls: Sequence[Call], taps: object) -> list[str]:
        return ["all"]

    def for_calls(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> Sequence[Tensor]:
        return [signals[0]] * len(tie.calls)


@dataclass(frozen=True, kw_only=True)
class Broadcast(AbstractRule, kind="broadcast"):
    """A rule of one's own: s = B e, computed once."""

    wiring = OneForAll
    label = "broadcast"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        return _Broadcast(projection)


class _Broadcast(AbstractFeedback):
    def __init__(self, projection: AbstractProjection) -> None:
        self.projection = projection

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        num_outputs = calls[-1].shape[-1]
        assert self.projection is not None
        return [self.projection.shaped(error.e_ND.shape[1], num_outputs).project(error.e_ND) / num_outputs**0.5]


@pytest.mark.parametrize("recompute", [False, True, "stream"])
def test_a_rule_with_a_wiring_of_its_own(recompute: bool) -> None:
    """Outside of odfa, in one file; it is the shared slice of `RandomFeedback`."""
    gradients = []
    for rule in (Broadcast(), RandomFeedback(shared=True)):
        model = net()
        dfa = DFA(model, projection=Gaussian(seed=2), rule=rule, recompute=recompute)
        loss_of(model).backward()
        gradients.append([p.grad for p in model.parameters()])
        assert f"rule {rule.kind} ({rule.wiring.name} wiring)" in repr(dfa)
    for ours, theirs in zip(*gradients, strict=True):
        assert ours is not None
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)
