"""Mistakes in a rule of another package: each is one sentence that names the rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.engine import DFA
from odfa.engine.calls import Call
from odfa.engine.rules import AbstractFeedback, AbstractRule
from odfa.engine.rules.head import HeadRule
from odfa.engine.wirings import Direct
from odfa.errors import ConfigError
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from tests.engine.test_needs import batches, net

Signals = Callable[[ErrorSignal, Sequence[Call]], Any]


class _Said(AbstractFeedback):
    def __init__(self, signals: Signals) -> None:
        self.said = signals

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        return self.said(error, calls)  # type: ignore[no-any-return]


def right(_error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
    return [torch.ones(call.shape, dtype=call.dtype) for call in calls]


@dataclass(frozen=True, kw_only=True)
class Stranger(AbstractRule):
    """Signals as a test says."""

    said: Signals = right

    wiring = Direct
    label = "stranger"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        return _Said(self.said)


@dataclass(frozen=True, kw_only=True)
class StrangeHead(HeadRule):
    """The same along a residual stream."""

    said: Signals = right

    label = "strange head"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        return _Said(self.said)


def backward(rule: AbstractRule, model: nn.Module | None = None) -> nn.Module:
    model = net() if model is None else model
    DFA(model, rule=rule)
    x, y = next(batches(1))
    F.cross_entropy(model(x), y).backward()
    return model


def ones(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Signals:
    return lambda _error, _calls: [torch.ones(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("recompute", [False, True, "stream"])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (lambda _error, _calls: None, r"expected a list of 2 tensors from signals, got None; return \[signal, …\]"),
        (lambda error, _calls: error.e_ND, r"expected a list of 2 tensors from signals, got a tensor of float64"),
        (ones(), "expected a list of 2 tensors from signals, got 0; return one each for 0, 1, in this order"),
        (ones((7, 8)), "expected a list of 2 tensors from signals, got 1"),
        (ones((7, 8), (7, 6), (7, 6)), "expected a list of 2 tensors from signals, got 3"),
        (lambda _error, _calls: [None, None], "got None as number 0; return floating-point tensors alone"),
        (ones((7, 8), (7, 6), dtype=torch.int64), "got a tensor of int64 as number 0"),
        (ones((7, 6), (7, 8)), r"expected a signal of shape \(7, 8\) for block 0, got \(7, 6\); return one of"),
        # autograd would add these up without a word
        (ones((7, 8), (2, 7, 6)), r"expected a signal of shape \(7, 6\) for block 1, got \(2, 7, 6\)"),
    ],
)  # fmt: skip
def test_signals_of_direct_wiring(said: Signals, told: str, recompute: Any) -> None:
    model = net()
    DFA(model, rule=Stranger(said=said), recompute=recompute)
    x, y = next(batches(1))
    with pytest.raises(ConfigError, match=f"^rule Stranger: .*{told}"):
        F.cross_entropy(model(x), y).backward()
    assert all(p.grad is None for p in model.parameters())


def test_signals_that_fit_are_taken() -> None:
    assert all(p.grad is not None for p in backward(Stranger()).parameters())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ones(), "expected a list of 1 tensor from signals, got 0; return one each for 2:output"),
        (ones((7, 3)), r"expected a signal of shape \(7, 8\), that of the head's input, got \(7, 3\)"),
    ],
)
def test_signals_of_residual_wiring(said: Signals, told: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)).double()
    with pytest.raises(ConfigError, match=f"^rule StrangeHead: .*{told}"):
        backward(StrangeHead(said=said), model)


def test_start_that_returns_nothing() -> None:
    class Forgetful(Stranger):
        def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
            return None  # type: ignore[return-value]

    model = net()
    with pytest.raises(
        ConfigError, match=r"^rule Forgetful: expected an AbstractFeedback from start, got None; return"
    ):
        DFA(model, rule=Forgetful())
    assert DFA.of(model) is None


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"needs": "targets"}, r"needs = frozenset\(\{'error', …\}\), got 'targets'; write it in the rule's class"),
        ({"needs": {"error"}}, r"needs = frozenset\(\{'error', …\}\), got \{'error'\}"),
        ({"wiring": "direct"}, "wiring = Direct, or another subclass of AbstractWiring, got 'direct'"),
        ({"wiring": None}, "wiring = Direct, or another subclass of AbstractWiring, got none"),
        ({"label": None}, "label = 'a text for tables', got none"),
    ],
)
def test_what_a_class_declares(declared: dict[str, object], told: str) -> None:
    rule = type("Declared", (Stranger,), declared)
    with pytest.raises(ConfigError, match=f"^rule Declared: expected {told}"):
        rule()


def test_a_class_without_a_wiring() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Unwired(AbstractRule):
        label = "unwired"

        def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
            raise AssertionError("it is refused before")

    with pytest.raises(ConfigError, match=r"^rule Unwired: expected wiring = Direct, or .*, got none; write it in"):
        Unwired()


def test_targets_that_were_not_declared() -> None:
    def reads(error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        return [error.targets.double()] * len(calls)

    with pytest.raises(ConfigError, match=r"were not asked for; write needs = frozenset\(\{'error', 'targets'\}\) in"):
        backward(Stranger(said=reads))
