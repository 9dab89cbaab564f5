"""The control without light for the aligned read-out: the electronic low-rank part alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from odfa.engine.rules.base import AbstractFeedback, AbstractRule, Call
from odfa.engine.rules.readout import Readout
from odfa.errors import CheckpointError, ConfigError
from odfa.feedback import LowRank
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state


@dataclass(frozen=True, kw_only=True)
class ElectronicOnly(AbstractRule):
    """q = (rank-r part of W)^T e, with the read-out, the start and the wiring of `AlignedReadout` but no projection.

    What `AlignedReadout` gains over this at the same rank is what the projection contributes.
    """

    scale: float = 0.25
    rank: int = 16
    every: int = 20
    overwrite: bool = field(default=False, repr=False)

    name = "electronic"
    wiring = "residual"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Set the head as `AlignedReadout` does.

        Raises:
            MatchError: the head has no weight matrix of its own, or holds weights that look trained.
            ConfigError: scale, rank or every out of range for this head (rank must be at least 1).
        """
        if self.every < 1 or self.rank < 1:
            raise ConfigError(
                f"ElectronicOnly needs rank >= 1 and every >= 1, got rank={self.rank}, every={self.every}"
            )
        return _Electronic(Readout(projection, model, head, self.scale, self.rank, overwrite=self.overwrite), self)


class _Electronic(AbstractFeedback):
    def __init__(self, readout: Readout, rule: ElectronicOnly) -> None:
        self.readout, self.rule = readout, rule
        self.low_rank = LowRank(rule.rank)
        self.steps = 0

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        if self.steps % self.rule.every == 0:
            self.low_rank.fit(self.readout.matrix_VK, self.steps)
        self.steps += 1
        q_NK = self.low_rank(error.e_ND)
        assert q_NK is not None
        return [torch.unflatten(q_NK, 0, error.lead)]

    @property
    def description(self) -> str:
        """The electronic part alone."""
        return f"electronic rank {self.rule.rank} of the read-out, no projection"

    def state_dict(self) -> dict[str, Any]:
        """Step count and the factors."""
        return {"steps": self.steps, "low_rank": self.low_rank.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such a rule and read-out.
        """
        check_state(state, {"steps": int, "low_rank": {str: object}}, "feedback")
        if state["steps"] and not state["low_rank"]:
            raise CheckpointError(f"the saved state does not fit: no factors after {state['steps']} steps")
        self.low_rank.load_state_dict(state["low_rank"], self.readout.start_VK)
        self.steps = state["steps"]
