"""Feedback that follows the Jacobian of the network, measured by directional derivatives in forward mode."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from odfa.draws import Draws
from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback, Need
from odfa.engine.rules.learned import Learned, LearnedRule
from odfa.engine.rules.placed import refuse_nonfinite
from odfa.errors import NonFinite
from odfa.feedback import Placement
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state, finite
from odfa.settings import MAX_COUNT, require

_DIRECTIONS = int.from_bytes(b"jvp")
"""Key of the directions, with the number of the measurement and of the block's call."""


@dataclass(frozen=True, kw_only=True)
class ForwardGradient(LearnedRule, kind="forward_gradient"):
    """s_l = A_l e, and A_l follows dy/dh_l: A_l <- (1 - rate) A_l + rate * mean over rows of t u_l^T.

    u_l is a random direction at the output h_l of block l, entries N(0, 1), and t = sum_l J_l u_l the directional
    derivative of the outputs y, which one run of the model in forward mode gives for all blocks together. The mean of
    t u_l^T is the mean of J_l over rows; of tokens, each token's own outputs are looked at. A_l starts as
    scale / sqrt(K_l) * B_l and moves when the optimiser steps. Processes of a distributed run average t u_l^T.

    Source: after GrAPE (Caillon, Fagnou, Delattre & Allauzen, ICLR 2026), which aligns feedback with such estimates by
    a cosine loss and adds steps of backpropagation; here it is a running mean alone. Forward gradients: Baydin et al.,
    arXiv 2202.08587.
    """

    feedback_rate: float = 0.01
    """Share of a new measurement in the feedback."""
    every: int = 1
    """Backward passes between two measurements, each of which runs the model once more."""

    needs: ClassVar[frozenset[Need]] = frozenset({"error", "forward products", "optimiser step"})
    label = "forward gradient"
    colour = "#F0E442"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.feedback_rate <= 1, "feedback_rate", "a share in (0, 1]", self.feedback_rate)
        require(1 <= self.every <= MAX_COUNT, "every", f"1 to {MAX_COUNT:,} backward passes", self.every)

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """Everything, with its cost for a block as wide as the head's input."""
        products = 2 * num_outputs * width
        times = "backward pass" if self.every == 1 else f"{self.every} backward passes"
        return (
            f"all: learned feedback, {products:,} multiply-adds a row for a block {width} wide, and a run of the model "
            f"in forward mode every {times}"
        )

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Matrices are made when the blocks first run."""
        return _Following(projection, self)


class _Following(Learned):
    def __init__(self, projection: AbstractProjection, rule: ForwardGradient) -> None:
        super().__init__(projection, rule)
        self.rate, self.every = rule.feedback_rate, rule.every
        self.passes = 0
        """Backward passes so far."""
        self.measured = 0
        """Measurements since the last step of the optimiser."""

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        places = [placed for _, placed in self.places(error, calls)]
        refuse_nonfinite(error)
        e_ND = error.e_ND
        self.fit_matrices(e_ND, calls, [placed.width for placed in places])
        with torch.autocast(e_ND.device.type, enabled=False):
            signals = [
                placed.signal(e_ND @ self.matrices[call.block], 1.0) for call, placed in zip(calls, places, strict=True)
            ]
        if calls and self.passes % self.every == 0:
            self.measure(error, calls, places)
        self.passes += 1
        return signals

    def measure(self, error: ErrorSignal, calls: Sequence[Call], places: Sequence[Placement]) -> None:
        """Gather the mean of t u^T for every block, over its calls.

        Raises:
            NonFinite: a derivative is not finite.
        """
        directions = [self.direction(number, call.shape, error.e_ND) for number, call in enumerate(calls)]
        t_ND = error.products(directions).to(error.e_ND)
        if not finite(t_ND):
            raise NonFinite("the derivative of the outputs in forward mode contains NaN or infinity")
        sums = dict(self.gathered)
        with torch.autocast(t_ND.device.type, enabled=False):
            for call, placed, direction in zip(calls, places, directions, strict=True):
                # the average of s tokens' directions has variance 1/s
                mean_DK = placed.spread / max(1, len(t_ND)) * (t_ND.T @ placed.rows(direction))
                mean_DK = mean_DK / sum(other.block == call.block for other in calls)
                before = sums.get(call.block)
                sums[call.block] = mean_DK if before is None else before.to(mean_DK) + mean_DK
        self.gathered = sums
        self.measured += 1

    def direction(self, number: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """N(0, 1) of the shape of what the n-th call returned, of the device and type of `like`."""
        draws, samples = Draws(_DIRECTIONS, self.passes, number), shape[0]
        return draws.normal(samples, prod(shape[1:]), device=like.device, dtype=like.dtype).view(shape)

    def stepped(self, optimizer: Any) -> None:
        super().stepped(optimizer)
        self.measured = 0

    def moved(self, matrix_DK: Tensor, sum_DK: Tensor) -> Tensor:
        return (1 - self.rate) * matrix_DK + self.rate / self.measured * sum_DK

    def state_dict(self) -> dict[str, Any]:
        """The matrices and what is gathered, the numbers of backward passes and of measurements."""
        return {"learned": super().state_dict(), "passes": self.passes, "measured": self.measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such a rule.
        """
        check_state(state, {"learned": {str: object}, "passes": int, "measured": int}, "feedback")
        super().load_state_dict(state["learned"])
        self.passes, self.measured = state["passes"], max(state["measured"], int(bool(self.gathered)))
