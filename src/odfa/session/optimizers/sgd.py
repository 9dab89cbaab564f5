"""Stochastic gradient descent with momentum."""

from dataclasses import dataclass
from typing import Any

import torch

from odfa.session.optimizers.base import OptimizerSettings
from odfa.settings import require


@dataclass(frozen=True, kw_only=True)
class SgdSettings(OptimizerSettings, kind="sgd"):
    """How the weights move: gradient descent; the learning rate is a pure function of the step."""

    momentum: float = 0.9
    """Share of the last step's direction that stays in the next one; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.momentum < 1, "momentum", "a number in [0, 1)", self.momentum)

    @property
    def moments(self) -> int:
        """The direction, if there is momentum."""
        return int(self.momentum > 0)

    def build(self, groups: list[dict[str, Any]], *, stochastic: bool = False) -> torch.optim.Optimizer:
        """torch's SGD."""
        assert not stochastic, "refused where memory is checked"
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)
