"""Direct Kolen-Pollack: feedback matrices that learn as forward matrices in their place would, and so become them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback, Need
from odfa.engine.rules.learned import Learned, LearnedRule
from odfa.engine.rules.placed import refuse_nonfinite
from odfa.errors import NonFinite
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import finite
from odfa.settings import require


@dataclass(frozen=True, kw_only=True)
class KolenPollack(LearnedRule, kind="kolen_pollack"):
    """Direct Kolen-Pollack: s_l = A_l e, and when the optimiser steps A_l <- (1 - decay) A_l - rate * e h_l^T.

    h_l is what block l returned, one vector for each row of the error: averaged over tokens that share a row. e h_l^T,
    summed over the rows since the last step, is the gradient that a matrix from h_l to the outputs would get. If such a
    matrix learns by it at the same rate and decay, A_l tends to its transpose by a factor 1 - decay a step. A_l starts
    as scale / sqrt(K_l) * B_l; the projection is not used afterwards. Processes of a distributed run average e h_l^T.

    Source: Webster, Choi & Ahn, Learning the connections in direct feedback alignment (2021); Kolen & Pollack (1994).
    """

    feedback_rate: float = 0.1
    """Learning rate of the feedback."""
    feedback_decay: float = 0.001
    """Share of the feedback that is forgotten in a step."""

    needs: ClassVar[frozenset[Need]] = frozenset({"error", "block output", "optimiser step"})
    label = "Kolen-Pollack"
    colour = "#56B4E9"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.feedback_rate >= 0, "feedback_rate", "zero or a positive number", self.feedback_rate)
        require(0 <= self.feedback_decay < 1, "feedback_decay", "a share in [0, 1)", self.feedback_decay)

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """Everything, with its cost for a block as wide as the head's input."""
        products = 2 * num_outputs * width
        return f"all: learned feedback, {products:,} multiply-adds a row for a block {width} wide"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Matrices are made when the blocks first run."""
        return _Grown(projection, self)


class _Grown(Learned):
    def __init__(self, projection: AbstractProjection, rule: KolenPollack) -> None:
        super().__init__(projection, rule)
        self.rate, self.decay = rule.feedback_rate, rule.feedback_decay

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        places = self.places(error, calls)
        refuse_nonfinite(error)
        e_ND = error.e_ND
        self.fit_matrices(e_ND, calls, [placed.width for _, placed in places])
        products: dict[str, Tensor] = {}
        with torch.autocast(e_ND.device.type, enabled=False):
            for call, (_, placed) in zip(calls, places, strict=True):
                product_DK = e_ND.T @ placed.rows(call.output.to(e_ND))
                before = products.get(call.block, self.gathered.get(call.block))
                products[call.block] = product_DK if before is None else before.to(e_ND) + product_DK
                if not finite(products[call.block]):
                    raise NonFinite(f"the output of block {call.block} times the error is not finite")
            signals = [
                placed.signal(e_ND @ self.matrices[call.block], 1.0)
                for call, (_, placed) in zip(calls, places, strict=True)
            ]
        self.gathered = {**self.gathered, **products}
        return signals

    def moved(self, matrix_DK: Tensor, sum_DK: Tensor) -> Tensor:
        return (1 - self.decay) * matrix_DK - self.rate * sum_DK
