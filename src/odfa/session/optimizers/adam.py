"""Adam with decoupled weight decay (arXiv 1711.05101)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from odfa.data import needs, quietly
from odfa.session.optimizers.base import OptimizerSettings
from odfa.settings import require


@dataclass(frozen=True, kw_only=True)
class AdamSettings(OptimizerSettings, kind="adam"):
    """How the weights move: AdamW; the learning rate is a pure function of the step."""

    stochastic: ClassVar[bool] = True

    betas: tuple[float, float] = (0.9, 0.99)
    """The two averaging constants: of the gradient and of its square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers in [0, 1)", self.betas)

    @property
    def moments(self) -> int:
        """Means of the gradient and of its square."""
        return 2

    def build(self, groups: list[dict[str, Any]], *, stochastic: bool = False) -> torch.optim.Optimizer:
        """torch's AdamW, or torchao's for bfloat16 weights.

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
