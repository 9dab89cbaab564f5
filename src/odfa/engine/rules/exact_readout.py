"""The bound of the aligned read-out: the exact error of the head's input, sent to every block."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from odfa.engine.rules.base import AbstractFeedback, AbstractRule, Call
from odfa.engine.rules.readout import Readout
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection


@dataclass(frozen=True, kw_only=True)
class ExactReadout(AbstractRule):
    """q = W^T e with the read-out W as it is now, wired as in `AlignedReadout`: what no projection can exceed there.

    What it lacks to backpropagation is the price of placement: all blocks get the same signal. Nothing is projected.
    """

    scale: float = 0.25
    overwrite: bool = field(default=False, repr=False)

    name = "exact"
    wiring = "residual"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Set the head as `AlignedReadout` does.

        Raises:
            MatchError: the head has no weight matrix of its own, or holds weights that look trained.
            ConfigError: scale is not positive.
        """
        return _Exact(Readout(projection, model, head, self.scale, rank=0, overwrite=self.overwrite))


class _Exact(AbstractFeedback):
    def __init__(self, readout: Readout) -> None:
        self.readout = readout

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        q_NK = error.e_ND @ self.readout.matrix_VK.to(error.e_ND)
        return [torch.unflatten(q_NK, 0, error.lead)]

    @property
    def description(self) -> str:
        """The exact product."""
        return "exact product with the read-out, no projection"
