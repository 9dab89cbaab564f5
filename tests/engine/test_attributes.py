"""A measurement puts back what a feedback keeps in its attributes, whether or not `state_dict` holds it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.engine import DFA
from odfa.engine.attributes import remember
from odfa.engine.calls import Call
from odfa.engine.rules import AbstractFeedback, RandomFeedback
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection, Gaussian
from tests.engine.outside_rules import KolenPollack, _KolenPollack
from tests.engine.test_needs import RATE, batches, net


class _Forgetful(_KolenPollack):
    """Gathers in place, and none of what it gathers is in its state."""

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        before = self.gathered
        self.gathered = {}
        signals = super().signals(error, calls)
        for block, product_DK in self.gathered.items():
            if block in before:
                before[block] += product_DK
            else:
                before[block] = product_DK
        self.gathered = before
        return signals

    def state_dict(self) -> dict[str, Any]:
        return {"matrices": dict(self.matrices)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "gathered": self.gathered})


@dataclass(frozen=True, kw_only=True)
class Forgetful(KolenPollack):
    """Kolen-Pollack with such a feedback."""

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        return _Forgetful(self, projection)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_measured_between_accumulated_gradients(at: int) -> None:
    """Before the first backward pass, between both, and between the last one and the step."""
    models = [net(), net()]
    for model, measured in zip(models, (False, True), strict=True):
        dfa = DFA(model, rule=Forgetful(), projection=Gaussian(seed=2))
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        for _ in range(2):
            optimizer.zero_grad()
            for number, (x, y) in enumerate([*batches(2), *batches(1)]):
                if number == at and measured:
                    with dfa.measure_alignment() as angles:
                        F.cross_entropy(model(x), y).backward()
                    assert set(angles) == {"0", "1"}
                if number < 2:
                    F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


class _Keeps(AbstractFeedback):
    """All kinds of attributes."""

    def __init__(self, head: nn.Linear, inner: AbstractFeedback | None = None) -> None:
        self.count, self.word, self.late = 1, "a", None
        self.tensor, self.weight = torch.zeros(2), head.weight
        self.nested: dict[str, Any] = {"list": [torch.zeros(2), 1], "set": {1}, "pair": (torch.zeros(2), [2])}
        self.last = deque([1.0, 2.0], maxlen=2)
        self.object: object = head
        self.inner = inner
        self.nested["itself"] = self.nested

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        return []

    def change(self) -> None:
        """Everything, in place and by other objects."""
        self.count, self.word, self.late = 2, "b", torch.ones(1)  # type: ignore[assignment]
        self.new = [1]
        self.tensor += 1
        with torch.no_grad():
            self.weight.add_(1)
        self.nested["list"][0].add_(1)
        self.nested["list"].append(3)
        self.nested["set"].add(2)
        self.nested["pair"][0].add_(1)
        self.nested["pair"][1][0] = 7
        self.nested["more"] = 1
        self.last.append(3.0)
        self.object = "another"


def test_plain_attributes_are_put_back_in_place() -> None:
    model = nn.Linear(2, 2)
    inner = _Keeps(model)
    outer = _Keeps(model, inner)
    shared, before = outer.tensor, outer.weight.detach().clone()
    put_back = remember(outer, model)
    for feedback in (outer, inner):
        feedback.change()
    put_back()
    for feedback in (outer, inner):
        assert (feedback.count, feedback.word, feedback.late) == (1, "a", None)
        assert not hasattr(feedback, "new")
        assert torch.equal(feedback.tensor, torch.zeros(2))
        first, one = feedback.nested["list"]
        assert (first.tolist(), one, feedback.nested["set"]) == ([0, 0], 1, {1})
        assert (feedback.nested["pair"][0].tolist(), feedback.nested["pair"][1]) == ([0, 0], [2])
        assert feedback.nested.keys() == {"list", "set", "pair", "itself"}
        assert feedback.nested["itself"] is feedback.nested
        assert list(feedback.last) == [1.0, 2.0]
        assert feedback.object == "another"  # was no plain one
    assert outer.tensor is shared
    assert outer.weight is model.weight
    assert torch.equal(model.weight, before + 2)  # the model is nobody's state but its own


def test_what_is_made_late_and_is_no_plain_object_stays() -> None:
    feedback = _Keeps(nn.Linear(2, 2))
    put_back = remember(feedback, nn.Identity())
    feedback.late = made = Gaussian(seed=0).shaped(2, 2)  # type: ignore[assignment]
    put_back()
    assert feedback.late is made


def test_a_tensor_made_for_inference_is_put_back() -> None:
    feedback = _Keeps(nn.Linear(2, 2))
    with torch.inference_mode():
        feedback.tensor = torch.zeros(2)
    put_back = remember(feedback, nn.Identity())
    with torch.inference_mode():
        feedback.tensor += 1
    put_back()
    assert torch.equal(feedback.tensor, torch.zeros(2))


def test_a_projection_keeps_the_shape_that_a_measurement_gave_it() -> None:
    model = net()
    dfa = DFA(model, rule=RandomFeedback(), projection=Gaussian(seed=2))
    x, y = next(batches(1))
    with dfa.measure_alignment():
        F.cross_entropy(model(x), y).backward()
    assert dfa.projection.num_outputs == 14
