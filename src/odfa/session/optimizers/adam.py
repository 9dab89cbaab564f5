"""Adam with decoupled weight decay (arXiv 1711.05101)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from odfa.data import needs, quietly
from odfa.session.optimizers.base import Group, OptimizerSettings
from odfa.settings import require


@dataclass(frozen=True, kw_only=True)
class AdamSettings(OptimizerSettings, kind="adam"):
    """AdamW: steps along the mean gradient over the root of the mean squared gradient."""

    stochastic: ClassVar[bool] = True

    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the two moving averages: of the gradient and of its square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers in [0, 1)", self.betas)

    @property
    def moments(self) -> int:
        """2: the moving averages of the gradient and of its square."""
        return 2

    def build(self, groups: list[Group], *, stochastic: bool = False) -> torch.optim.Optimizer:
        """torch's AdamW, or torchao's if bfloat16 weights are to be rounded stochastically.

        Raises:
            MissingExtra: stochastic rounding without torchao.
        """
        rate, decay = self.learning_rate, self.weight_decay
        if not stochastic:
            return torch.optim.AdamW(groups, lr=rate, betas=self.betas, weight_decay=decay, fused=True)
        with needs("torchao", "bfloat16 weights", otherwise="say memory.precision=float32"), quietly():
            from torchao.optim import _AdamW
        adam: torch.optim.Optimizer = _AdamW(
            groups, lr=rate, betas=self.betas, weight_decay=decay, bf16_stochastic_round=True
        )
        return adam
