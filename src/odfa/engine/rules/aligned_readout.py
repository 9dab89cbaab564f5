"""The aligned read-out: the head starts as the feedback matrix, so that feedback is right from the first step."""

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
from odfa.saved import check_state, misfit, shown


@dataclass(frozen=True, kw_only=True)
class AlignedReadout(AbstractRule):
    """W starts as a B^T; q = a B e + (low rank of W - a B^T)^T e enters at the head's input and goes to every block.

    q passes what lies between the last block and the head (final norm, pooling) by true gradient, and the result goes
    to every block of the residual stream, whose Jacobian is close to the identity. The low-rank part is electronic and
    sees the exact error; it is refitted to the head every `every` steps and counted in the status table. `rank=0`
    leaves it out. Attaching overwrites the head: load trained weights after attaching, not before.

    Args:
        scale: a in units where normalised inputs give logits of standard deviation a.
        rank: rank of the electronic correction; keep it at or under an eighth of the width.
        every: backward passes between refits.
        overwrite: set a head that looks trained to its start too; refused otherwise.
    """

    scale: float = 0.25
    rank: int = 16
    every: int = 20
    overwrite: bool = field(default=False, repr=False)

    name = "aligned"
    wiring = "residual"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Measure the matrix and set the head to it.

        Raises:
            MatchError: the head has no weight matrix of its own, or holds weights that look trained.
            ConfigError: scale, rank or every out of range for this head.
        """
        if self.every < 1:
            raise ConfigError(f"every must be at least 1 step, got {self.every}")
        return _Aligned(Readout(projection, model, head, self.scale, self.rank, overwrite=self.overwrite), self)


class _Aligned(AbstractFeedback):
    projection: AbstractProjection

    def __init__(self, readout: Readout, rule: AlignedReadout) -> None:
        self.readout, self.rule = readout, rule
        self.projection = readout.projection
        self.correction = LowRank(rule.rank)
        self.steps = 0
        self.moved = False

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        self._check_head()
        if self.steps and self.steps % self.rule.every == 0:
            self.correction.fit(self.readout.drift_VK, self.steps)
        self.steps += 1
        q_NK = self.readout.gain * self.projection.project(error.e_ND)
        extra_NK = self.correction(error.e_ND)
        return [torch.unflatten(q_NK if extra_NK is None else q_NK + extra_NK, 0, error.lead)]

    def _check_head(self) -> None:
        if self.moved and self.readout.at_start:
            raise CheckpointError(
                f"the feedback goes on from step {self.steps}, but the head holds its start values: "
                "attaching overwrote it; load the model's weights after attaching"
            )
        self.moved = False

    @property
    def description(self) -> str:
        """The projection and the electronic part with its cost."""
        num_outputs, width = self.readout.start_VK.shape
        share = self.rule.rank * (num_outputs + width) / (num_outputs * width)
        electronic = (
            f"electronic rank {self.rule.rank} ({share:.1%} of the exact product)"
            if self.rule.rank
            else "no electronic part"
        )
        return f"{self.projection.identity} + {electronic}"

    def state_dict(self) -> dict[str, Any]:
        """Step count, whether the head has left its start, that measured start, the correction's factors."""
        return {
            "steps": self.steps,
            "moved": not self.readout.at_start,
            "start_VK": self.readout.start_VK,
            "correction": self.correction.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore; the read-out's weights come with the model's own state.

        Raises:
            CheckpointError: the state belongs to another rule, or to a read-out of another shape.
        """
        check_state(state, {"steps": int, "moved": bool, "start_VK": object, "correction": {str: object}}, "feedback")
        if misfit(state["start_VK"], self.readout.start_VK.to("meta"), "start_VK"):
            theirs, ours = shown(state["start_VK"]), shown(self.readout.start_VK)
            raise CheckpointError(f"the checkpoint's read-out is {theirs}, this model's is {ours}")
        self.correction.load_state_dict(state["correction"], self.readout.start_VK)
        self.steps, self.moved = state["steps"], state["moved"]
        self.readout.start_VK = state["start_VK"]
