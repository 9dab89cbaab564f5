"""Stochastic gradient descent with momentum."""

from dataclasses import dataclass

import torch

from odfa.session.optimizers.base import Group, OptimizerSettings
from odfa.settings import require


@dataclass(frozen=True, kw_only=True)
class SgdSettings(OptimizerSettings, kind="sgd"):
    """Gradient descent with momentum: steps along a moving sum of the gradients."""

    momentum: float = 0.9
    """Share of the last step's direction that is added to the next gradient; 0: plain gradient descent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.momentum < 1, "momentum", "a number in [0, 1)", self.momentum)

    @property
    def moments(self) -> int:
        """1: the last step's direction; 0 without momentum."""
        return int(self.momentum > 0)

    def build(self, groups: list[Group], *, stochastic: bool = False) -> torch.optim.Optimizer:
        """torch's SGD; it cannot round stochastically, and `check_memory` refuses runs that would ask for it."""
        assert not stochastic, "check_memory refuses bfloat16 with sgd"
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)
