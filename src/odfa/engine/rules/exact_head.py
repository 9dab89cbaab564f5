"""The bound of the aligned head: the exact error of the head's input, sent to every block."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback
from odfa.engine.rules.head import Head, HeadRule
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection


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
        return "all: exact product of the head and the error, a bound"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Set the head as `AlignedHead` does."""
        return _Exact(Head(projection, head, self))


class _Exact(AbstractFeedback):
    def __init__(self, head: Head) -> None:
        self.head = head

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        q_NK = error.e_ND @ self.head.matrix_VK.to(error.e_ND)
        return [torch.unflatten(q_NK, 0, error.lead)]

    @property
    def description(self) -> str:
        """Says that the product is exact, for the status table."""
        return "exact product with the head, no projection"
