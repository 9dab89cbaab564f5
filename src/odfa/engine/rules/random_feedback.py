"""Direct feedback alignment: a slice of the projected error at every block's output."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odfa.engine.rules.base import AbstractFeedback, AbstractRule, Call
from odfa.errors import ConfigError, MatchError, NonFinite
from odfa.feedback import Slots, place
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection


@dataclass(frozen=True, kw_only=True)
class RandomFeedback(AbstractRule):
    """The paper's rule: s_l = scale / sqrt(K_l) * B_l e at the output of block l, B_l fixed and random.

    Args:
        shared: one slice B for all blocks instead of one slice each; needs fewer optical modes.
        scale: with entries of variance 1 and the factor 1/sqrt(K), |s_l| ≈ scale * |e| at any width.

    Source: Nøkland, arXiv 1609.01596; by light, arXiv 2409.12965.
    """

    shared: bool = False
    scale: float = 1.0

    name = "random"
    wiring = "direct"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Slices are given out when the blocks first run.

        Raises:
            ConfigError: scale is not a positive number.
        """
        if not self.scale > 0:
            raise ConfigError(f"RandomFeedback needs scale > 0, got {self.scale}")
        return _Slices(projection, self)


class _Slices(AbstractFeedback):
    projection: AbstractProjection

    def __init__(self, projection: AbstractProjection, rule: RandomFeedback) -> None:
        self.projection = projection
        self.slots = Slots(shared=rule.shared)
        self.scale = rule.scale

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        placements = [place(call.shape, error.lead, call.block) for call in calls]
        slices = [self.slots.take(call.block, p.width) for call, p in zip(calls, placements, strict=True)]
        if not calls:
            return []
        p_NM = self._fit(error.e_ND.shape[1]).project(error.e_ND)
        if not torch.isfinite(p_NM).all():
            raise NonFinite(
                f"the feedback of {self.projection.identity} contains NaN or infinity; the optimiser has not moved"
            )
        return [
            placement.signal(p_NM[:, cut], self.scale / (1.0 if self.projection.isometric else placement.width**0.5))
            for placement, cut in zip(placements, slices, strict=True)
        ]

    def _fit(self, num_inputs: int) -> AbstractProjection:
        known = self.projection.num_inputs
        if known is not None and known != num_inputs:
            raise MatchError(f"the error was {known} wide before and is {num_inputs} now; keep the output size fixed")
        if (self.projection.num_inputs, self.projection.num_outputs) != (num_inputs, self.slots.total):
            self.projection = self.projection.shaped(num_inputs, self.slots.total)
        return self.projection

    @property
    def description(self) -> str:
        """The projection, and how it is split."""
        return f"{self.projection.identity}, {'one shared slice' if self.slots.shared else 'a slice for each block'}"

    def state_dict(self) -> dict[str, Any]:
        """Slices given out, and the width of the error."""
        return {"slots": self.slots.state_dict(), "num_inputs": self.projection.num_inputs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the slices and shape the projection to them."""
        self.slots.load_state_dict(state["slots"])
        if state["num_inputs"] is not None:
            self._fit(state["num_inputs"])
