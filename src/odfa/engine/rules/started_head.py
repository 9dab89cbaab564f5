"""What the rules at work share whose head started from the measured matrix and whose signal is the light and more."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from odfa.engine.rules.base import AbstractFeedback
from odfa.engine.rules.head import Head, RankedHeadRule
from odfa.errors import CheckpointError
from odfa.feedback import LowRank, projected
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state, misfit, shown

RankedHeadRuleT = TypeVar("RankedHeadRuleT", bound=RankedHeadRule)


class StartedHead(AbstractFeedback, Generic[RankedHeadRuleT]):
    """q = a B e, plus an electronic part of low rank in what the head has learned since."""

    projection: AbstractProjection
    takes_half = True

    def __init__(self, head: Head, rule: RankedHeadRuleT) -> None:
        self.head, self.rule = head, rule
        self.projection = head.projection
        num_outputs, width = head.start_VK.shape
        self.low_rank = LowRank(rule.rank_of(num_outputs=num_outputs, width=width))
        self.steps = 0
        self.moved = False

    def check_head(self) -> None:
        """Refuse to go on with a head that attaching has overwritten.

        Raises:
            CheckpointError: the loaded state says that the head had moved, and it has not.
        """
        if self.moved and self.head.at_start:
            raise CheckpointError(
                f"the feedback goes on from step {self.steps}, but the head holds its start values: "
                "attaching overwrote it; load the model's weights after attaching"
            )
        self.moved = False

    def signal(self, error: ErrorSignal, electronic: Callable[[Tensor], Tensor | None]) -> Tensor:
        """q = a B e + what is electronic, in the shape of the head's input."""

        def q_of(e_NV: Tensor) -> Tensor:
            extra_NK = electronic(e_NV)
            q_NK = self.head.gain * projected(self.projection, e_NV)
            return q_NK if extra_NK is None else q_NK + extra_NK

        return torch.unflatten(error.each(q_of), 0, error.lead)

    @property
    def hop_weight(self) -> float:
        """From the number of this pass, which a resumed run goes on with."""
        return self.rule.hop_weight(self.steps)

    @property
    @abstractmethod
    def beside(self) -> str:
        """What is electronic beside the projection."""

    @property
    def description(self) -> str:
        """The projection and the electronic part with its cost."""
        num_outputs, width = self.head.start_VK.shape
        share = self.rule.electronic_share(self.low_rank.rank, num_outputs=num_outputs, width=width)
        part = f"electronic {self.beside} ({share:.1%} of the exact product)"
        return f"{self.projection.identity} + {part if share else 'no electronic part'}"

    def state_dict(self) -> dict[str, Any]:
        """Step count, whether the head has left its start, that measured start, the factors of the low rank."""
        return {
            "steps": self.steps,
            "moved": not self.head.at_start,
            "start_VK": self.head.start_VK,
            "correction": self.low_rank.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore; the head's weights come with the model's own state.

        Raises:
            CheckpointError: the state belongs to another rule, or to a head of another shape.
        """
        check_state(state, {"steps": int, "moved": bool, "start_VK": object, "correction": {str: object}}, "feedback")
        if misfit(state["start_VK"], self.head.start_VK.to("meta"), "start_VK"):
            theirs, ours = shown(state["start_VK"]), shown(self.head.start_VK)
            raise CheckpointError(f"the checkpoint's head is {theirs}, this model's is {ours}")
        self.low_rank.load_state_dict(state["correction"], self.head.start_VK)
        self.steps, self.moved = state["steps"], state["moved"]
        self.head.start_VK = state["start_VK"]
