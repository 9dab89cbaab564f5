"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for the matrices of the blocks, Adam for the rest."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from odfa.engine.layers import layout_of
from odfa.errors import ConfigError
from odfa.session.optimizers.base import Group, OptimizerSettings
from odfa.settings import require, tag_of

_MATRIX, _TRANSPOSED = "matrix", "transposed matrix"
"""Roles of weights that Muon moves: outputs x inputs, and inputs x outputs (`Conv1D` of transformers)."""
_MAX_NEWTON_STEPS = 99
"""Most that torch's Muon takes."""


@dataclass(frozen=True, kw_only=True)
class MuonSettings(OptimizerSettings, kind="muon"):
    """Muon: each matrix in the blocks steps along its averaged gradient, made nearly orthogonal; Adam moves the rest.

    The matrices are the weights of two axes inside the blocks, embeddings aside; the rest is embeddings, head, norms,
    biases, convolutions, and whatever lies outside the blocks.
    """

    of_matrices: ClassVar[tuple[str, ...]] = ("momentum", "nesterov", "newton_steps", "adjust")

    learning_rate: float = 0.02
    """Highest learning rate of the matrices, reached after the warm-up."""
    rest_share: float = 0.05
    """Learning rate of all other weights, which Adam moves, over that of the matrices; embedding_share and head_share
    multiply it."""
    momentum: float = 0.95
    """Decay of the moving average of a matrix's gradient; 0: no average."""
    nesterov: bool = True
    """Whether the newest gradient is averaged in a second time before a step."""
    newton_steps: int = 5
    """Newton-Schulz steps, in bfloat16, that bring all singular values of a step near 1."""
    adjust: Literal["original", "match_rms_adamw"] = "original"
    """Factor on a matrix's step. original: root of outputs over inputs, at least 1; match_rms_adamw: 0.2 times the root
    of the larger of the two, about the size of Adam's steps (arXiv 2502.16982)."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's decay of its two moving averages: of the gradient and of its square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.rest_share < math.inf, "rest_share", "a positive number", self.rest_share)
        require(0 <= self.momentum < 1, "momentum", "a number in [0, 1)", self.momentum)
        fits = 0 < self.newton_steps <= _MAX_NEWTON_STEPS
        require(fits, "newton_steps", f"a positive number up to {_MAX_NEWTON_STEPS}", self.newton_steps)
        require(all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers in [0, 1)", self.betas)

    def unread(self) -> Mapping[str, str]:
        """The second averaging where there is no first one."""
        return {} if self.momentum else {"nesterov": "momentum=0 averages nothing"}

    @property
    def moments(self) -> int:
        """2, Adam's averages of the gradient and of its square; `moments_of` says what matrices need."""
        return 2

    def moments_of(self, role: str) -> int:
        """1 for a matrix, the average of its gradient; 2 for other weights."""
        return 1 if role else self.moments

    def roles(self, model: nn.Module, blocks: Iterable[str]) -> dict[Tensor, str]:
        """The matrices inside the blocks, and which of them are kept transposed.

        Raises:
            ConfigError: there are none.
        """
        embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
        found: dict[Tensor, str] = {}
        for module in (module for block in blocks for module in model.get_submodule(block).modules()):
            role = _TRANSPOSED if layout_of(module) == "inputs x outputs" else _MATRIX
            own = (weight for weight in module.parameters(recurse=False) if weight.ndim == 2)
            found |= dict.fromkeys((weight for weight in own if weight not in embeddings), role)
        if not found:
            raise ConfigError(
                f"optimizer={tag_of(self)}: expected blocks with matrices (weights of two axes), and those of this "
                "network have none; expected optimizer=adam"
            )
        return found

    def build(self, groups: list[Group], *, stochastic: bool = False) -> torch.optim.Optimizer:
        """torch's Muon and its AdamW as one optimiser; one of them alone if the other has nothing to move."""
        assert not stochastic, "check_memory refuses bfloat16 with muon"
        matrices = [part for group in groups if group["role"] for part in self._sized(group)]
        rest = [
            group | {"rate_share": self.rest_share * cast(float, group["rate_share"])}
            for group in groups
            if not group["role"]
        ]
        parts: list[torch.optim.Optimizer] = []
        if matrices:
            muon = torch.optim.Muon(
                matrices,
                lr=self.learning_rate,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                nesterov=self.nesterov,
                ns_steps=self.newton_steps,
                adjust_lr_fn=self.adjust,
            )
            parts.append(muon)
        if rest:
            rate = self.rest_share * self.learning_rate
            adam = torch.optim.AdamW(rest, lr=rate, betas=self.betas, weight_decay=self.weight_decay, fused=True)
            parts.append(adam)
        return parts[0] if len(parts) == 1 else _Together(parts)

    def _sized(self, group: Group) -> list[Group]:
        """The group as it is, or where matrices are kept transposed one group for each ratio of their sides.

        torch takes the first side of a weight for its outputs:
        sqrt(max(1, outputs / inputs)) = sqrt(outputs / inputs) sqrt(max(1, inputs / outputs)).
        """
        if group["role"] == _MATRIX or self.adjust != "original":
            return [group]
        ratios: dict[float, list[nn.Parameter]] = {}
        for weight in cast(list[nn.Parameter], group["params"]):
            inputs, outputs = weight.shape
            ratios.setdefault(math.sqrt(outputs / inputs), []).append(weight)
        share = cast(float, group["rate_share"])
        return [
            # the decay is multiplied by the rate, which the ratio must not change for it
            group | {"params": weights, "rate_share": share * ratio, "weight_decay": self.weight_decay / ratio}
            for ratio, weights in ratios.items()
        ]


class _Together(torch.optim.Optimizer):
    """Several optimisers of different weights as one: their groups in order, one state, one step."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._parts = parts
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of each. torch's hooks run once, for the whole: rules are told when all weights have moved."""
        assert closure is None, "runs give none"
        for part in self._parts:
            # torch wraps the step of every optimiser class that has an instance
            unhooked = cast(Callable[[torch.optim.Optimizer], None], vars(type(part).step)["__wrapped__"])
            unhooked(part)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """torch calls this with new groups and a new state when a state is loaded."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        start = 0
        for part in self._parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:end], self.state
            start = end
