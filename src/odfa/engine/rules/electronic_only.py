"""The control without light for the aligned head: the electronic low-rank part alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback
from odfa.engine.rules.head import FollowedHeadRule, Head
from odfa.errors import CheckpointError
from odfa.feedback import LowRank
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state


@dataclass(frozen=True, kw_only=True)
class ElectronicOnly(FollowedHeadRule, kind="electronic"):
    """q = (rank-r part of W)^T e, with the head, the start and the wiring of `AlignedHead` but no projection.

    What `AlignedHead` gains over this at the same rank is what the projection contributes.
    """

    lowest_rank = 1  # rank 0 would leave this rule with nothing
    label = "electronic part alone"
    colour = "#CC79A7"

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """Everything; nothing is projected."""
        rank = self.rank_of(num_outputs=num_outputs, width=width)
        return self.with_hops(f"all: correction {self.corrected(rank)} alone")

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Set the head as `AlignedHead` does.

        Raises:
            ConfigError: the rank is out of range for this head.
        """
        return _Electronic(Head(projection, head, self), self)


class _Electronic(AbstractFeedback):
    takes_half = True

    def __init__(self, head: Head, rule: ElectronicOnly) -> None:
        self.head, self.rule = head, rule
        num_outputs, width = head.start_VK.shape
        self.low_rank = LowRank(rule.rank_of(num_outputs=num_outputs, width=width))
        self.steps = 0

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        if self.steps % self.rule.every == 0:
            self.low_rank.fit(self.head.matrix_VK, self.steps)
        self.steps += 1
        product = self.rule.electronic_product(self.head.matrix_VK, self.low_rank, self.steps)

        def q_of(e_NV: Tensor) -> Tensor:
            q_NK = product(e_NV)
            assert q_NK is not None
            return q_NK

        return [torch.unflatten(error.each(q_of), 0, error.lead)]

    @property
    def hop_weight(self) -> float:
        """From the number of this pass, which a resumed run goes on with."""
        return self.rule.hop_weight(self.steps)

    @property
    def description(self) -> str:
        """The electronic part alone."""
        drawn = f" and its rows at {self.rule.drawn} drawn entries of each sign" if self.rule.drawn else ""
        return f"electronic rank {self.low_rank.rank} of the head{drawn}, no projection"

    def state_dict(self) -> dict[str, Any]:
        """Step count and the factors."""
        return {"steps": self.steps, "low_rank": self.low_rank.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such a rule and head.
        """
        check_state(state, {"steps": int, "low_rank": {str: object}}, "feedback")
        if state["steps"] and not state["low_rank"]:
            raise CheckpointError(f"the saved state does not fit: no factors after {state['steps']} steps")
        self.low_rank.load_state_dict(state["low_rank"], self.head.start_VK)
        self.steps = state["steps"]
