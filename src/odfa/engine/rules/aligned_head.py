"""The aligned head: the head starts as the feedback matrix, so that feedback is right from the first step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback
from odfa.engine.rules.head import Head, RankedHeadRule
from odfa.errors import CheckpointError
from odfa.feedback import LowRank
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state, misfit, shown


@dataclass(frozen=True, kw_only=True)
class AlignedHead(RankedHeadRule, kind="aligned"):
    """W starts as a B^T; q = a B e + (low rank of W - a B^T)^T e enters at the head's input and goes to every block.

    q passes what lies between the last block and the head (final norm, pooling) by true gradient, and the result goes
    to every block of the residual stream, whose Jacobian is close to the identity. The low-rank part is electronic and
    sees the exact error; it is refitted to the head every `every` steps and counted in the status table. `rank=0`
    leaves it out; keep it at or under an eighth of the width. `drawn` entries of each row of the error meet all of
    W - a B^T, which estimates without bias what low rank leaves out. Attaching overwrites the head: load trained
    weights after attaching, not before.
    """

    label = "aligned head"
    colour = "#D55E00"

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """That of the projection, and the correction."""
        rank = self.rank_of(num_outputs=num_outputs, width=width)
        parts = self.corrected(rank)
        told = f"with an electronic correction {parts}" if parts else "no electronic correction (rank 0)"
        return self.with_hops(f"{projection}, {told}")

    def num_vectors(self, rows: int, *, num_outputs: int) -> int:
        """The start of the head, then every row of the error."""
        return num_outputs + rows

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Measure the matrix and set the head to it.

        Raises:
            ConfigError: the rank is out of range for this head.
        """
        return _Aligned(Head(projection, head, self), self)


class _Aligned(AbstractFeedback):
    projection: AbstractProjection

    def __init__(self, head: Head, rule: AlignedHead) -> None:
        self.head, self.rule = head, rule
        self.projection = head.projection
        num_outputs, width = head.start_VK.shape
        self.correction = LowRank(rule.rank_of(num_outputs=num_outputs, width=width))
        self.steps = 0
        self.moved = False

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        self._check_head()
        if self.steps and self.steps % self.rule.every == 0:
            self.correction.fit(self.head.drift_VK, self.steps)
        self.steps += 1
        q_NK = self.head.gain * self.projection.project(error.e_ND)
        drift_VK = self.head.drift_VK if self.rule.drawn else self.head.start_VK
        extra_NK = self.rule.electronic_product(error.e_ND, drift_VK, self.correction, self.steps)
        return [torch.unflatten(q_NK if extra_NK is None else q_NK + extra_NK, 0, error.lead)]

    @property
    def hop_weight(self) -> float:
        """From the number of this pass, which a resumed run goes on with."""
        return self.rule.hop_weight(self.steps)

    def _check_head(self) -> None:
        if self.moved and self.head.at_start:
            raise CheckpointError(
                f"the feedback goes on from step {self.steps}, but the head holds its start values: "
                "attaching overwrote it; load the model's weights after attaching"
            )
        self.moved = False

    @property
    def description(self) -> str:
        """The projection and the electronic part with its cost."""
        num_outputs, width = self.head.start_VK.shape
        rank = self.correction.rank
        share = self.rule.electronic_share(rank, num_outputs=num_outputs, width=width)
        drawn = f" and {self.rule.drawn} drawn entries of each sign" if self.rule.drawn else ""
        part = f"electronic rank {rank}{drawn} ({share:.1%} of the exact product)"
        electronic = part if share else "no electronic part"
        return f"{self.projection.identity} + {electronic}"

    def state_dict(self) -> dict[str, Any]:
        """Step count, whether the head has left its start, that measured start, the correction's factors."""
        return {
            "steps": self.steps,
            "moved": not self.head.at_start,
            "start_VK": self.head.start_VK,
            "correction": self.correction.state_dict(),
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
        self.correction.load_state_dict(state["correction"], self.head.start_VK)
        self.steps, self.moved = state["steps"], state["moved"]
        self.head.start_VK = state["start_VK"]
