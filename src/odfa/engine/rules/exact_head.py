"""The bound of the aligned head: the exact error of the head's input, sent to every block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback
from odfa.engine.rules.head import Head, HeadRule
from odfa.flow import ErrorSignal, wide
from odfa.project import AbstractProjection
from odfa.saved import check_state


@dataclass(frozen=True, kw_only=True)
class ExactHead(HeadRule, kind="exact"):
    """q = W^T e with the head's weight W as it is now, wired as in `AlignedHead`: what no projection can exceed there.

    What it lacks to backpropagation is the price of placement: all blocks get the same signal. The projection only
    gives the head its start.
    """

    label = "exact head"
    colour = "#009E73"

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """Everything; nothing is projected."""
        return self.with_hops("all: exact product of the head and the error, a bound")

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Set the head as `AlignedHead` does."""
        return _Exact(Head(projection, head, self), self)


class _Exact(AbstractFeedback):
    takes_half = True

    def __init__(self, head: Head, rule: ExactHead) -> None:
        self.head, self.rule = head, rule
        self.steps = 0

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        self.steps += 1
        matrix_VK = self.head.weight_VK.to(error.like)
        q_NK = error.each(lambda e_NV: wide(e_NV @ matrix_VK))
        return [torch.unflatten(q_NK, 0, error.lead)]

    @property
    def hop_weight(self) -> float:
        """From the number of this pass, which a resumed run goes on with."""
        return self.rule.hop_weight(self.steps)

    @property
    def description(self) -> str:
        """Says that the product is exact, for the status table."""
        return "exact product with the head, no projection"

    def state_dict(self) -> dict[str, Any]:
        """The number of passes."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such a rule.
        """
        check_state(state, {"steps": int}, "feedback")
        self.steps = state["steps"]
