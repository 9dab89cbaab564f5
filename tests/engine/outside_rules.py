"""Rules as another package would bring them, each of which needs something else than the error; see `test_needs.py`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.optim import Optimizer

from odfa.engine.calls import Call
from odfa.engine.rules import AbstractFeedback, AbstractRule, RandomFeedback
from odfa.engine.rules.base import Need
from odfa.engine.wirings import Direct
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state


class _Sliced(AbstractFeedback):
    """Slices of the projection, given out as random feedback does."""

    def __init__(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> None:
        self.slices = RandomFeedback().start(projection, model, head)

    @property
    def projection(self) -> AbstractProjection | None:  # type: ignore[override]
        return self.slices.projection

    def doubts(self, block: str, shape: tuple[int, ...], lead: tuple[int, ...] | None) -> bool:
        return self.slices.doubts(block, shape, lead)

    def state_dict(self) -> dict[str, Any]:
        return self.slices.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.slices.load_state_dict(state)


@dataclass(frozen=True, kw_only=True)
class Drtp(AbstractRule):
    """Direct random target projection: s_l = strength / N * B_l onehot(y). The error trains the head alone.

    Source: Frenkel, Lefebvre & Bol, Frontiers in Neuroscience 15 (2021), 629892.
    """

    strength: float = 0.1
    """Size of the signals."""

    wiring = Direct
    needs: ClassVar[frozenset[Need]] = frozenset({"targets"})
    label = "DRTP"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Nothing is set."""
        return _Drtp(self, projection, model, head)


class _Drtp(_Sliced):
    def __init__(self, rule: Drtp, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> None:
        super().__init__(projection, model, head)
        self.strength = rule.strength

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        assert error.targets is not None
        num_rows, num_classes = error.e_ND.shape
        y_ND = one_hot(error.targets, num_classes).to(error.e_ND)
        return self.slices.signals(replace(error, e_ND=self.strength / num_rows * y_ND), calls)


@dataclass(frozen=True, kw_only=True)
class Normalised(AbstractRule):
    """s_l = B_l e / (1 + mean square of what block l received), sample by sample."""

    wiring = Direct
    needs: ClassVar[frozenset[Need]] = frozenset({"error", "block input"})
    label = "normalised"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Nothing is set."""
        return _Normalised(projection, model, head)


class _Normalised(_Sliced):
    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        received = [call.input.double().square().flatten(1).mean(1) for call in calls]
        signals = self.slices.signals(error, calls)
        return [
            signal / (1 + size_N).reshape(-1, *[1] * (signal.ndim - 1)).to(signal)
            for signal, size_N in zip(signals, received, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class KolenPollack(AbstractRule):
    """Direct Kolen-Pollack: s_l = e B_l, and at every step B_l <- (1 - decay) B_l - rate e^T h_l.

    e^T h_l is summed over the backward passes since the last step, h_l is what block l returned. B_l starts random.
    """

    rate: float = 0.1
    """Learning rate of the feedback."""
    decay: float = 0.01
    """Share of the feedback that is forgotten in a step."""

    wiring = Direct
    needs: ClassVar[frozenset[Need]] = frozenset({"error", "block output", "optimiser step"})
    label = "Kolen-Pollack"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """The matrices are drawn in the first backward pass."""
        return _KolenPollack(self, projection)


class _KolenPollack(AbstractFeedback):
    projection: AbstractProjection

    def __init__(self, rule: KolenPollack, projection: AbstractProjection) -> None:
        self.rule, self.projection = rule, projection
        self.matrices: dict[str, Tensor] = {}
        self.gathered: dict[str, Tensor] = {}

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        if not self.matrices:
            self._draw(error.e_ND, calls)
        for call in calls:
            product_DK = error.e_ND.T @ call.output.to(error.e_ND)
            before = self.gathered.get(call.block)
            self.gathered[call.block] = product_DK if before is None else before + product_DK
        return [error.e_ND @ self.matrices[call.block].to(error.e_ND) for call in calls]

    def _draw(self, e_ND: Tensor, calls: Sequence[Call]) -> None:
        widths = [call.shape[1] for call in calls]
        self._shape(e_ND.shape[1], sum(widths))
        b_DM = self.projection.project(torch.eye(e_ND.shape[1], dtype=e_ND.dtype, device=e_ND.device))
        parts = b_DM.split(widths, dim=1)
        self.matrices = {call.block: part / width**0.5 for call, part, width in zip(calls, parts, widths, strict=True)}

    def _shape(self, num_inputs: int, num_outputs: int) -> None:
        self.projection = self.projection.shaped(num_inputs, num_outputs)

    def stepped(self, optimizer: Optimizer) -> None:
        for block, product_DK in self.gathered.items():
            self.matrices[block] = (1 - self.rule.decay) * self.matrices[block] - self.rule.rate * product_DK
        self.gathered = {}

    def state_dict(self) -> dict[str, Any]:
        return {"matrices": dict(self.matrices), "gathered": dict(self.gathered)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_state(state, {"matrices": {str: Tensor}, "gathered": {str: Tensor}}, "feedback")
        self.matrices, self.gathered = dict(state["matrices"]), dict(state["gathered"])
        if self.matrices:
            sizes = [matrix.shape for matrix in self.matrices.values()]
            self._shape(sizes[0][0], sum(size[1] for size in sizes))


@dataclass(frozen=True, kw_only=True)
class Fading(AbstractRule):
    """s_l = 2^-t B_l e after t steps of the optimiser."""

    wiring = Direct
    needs: ClassVar[frozenset[Need]] = frozenset({"error", "optimiser step"})
    label = "fading"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Nothing is set."""
        return _Fading(projection, model, head)


class _Fading(_Sliced):
    steps = 0

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        return [0.5**self.steps * signal for signal in self.slices.signals(error, calls)]

    def stepped(self, optimizer: Optimizer) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "slices": self.slices.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_state(state, {"steps": int, "slices": {str: object}}, "feedback")
        self.steps = state["steps"]
        self.slices.load_state_dict(state["slices"])
