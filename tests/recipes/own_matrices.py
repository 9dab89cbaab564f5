"""A rule of another package that brings its matrices along and so needs no projection."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules import AbstractFeedback, AbstractRule
from odfa.engine.wirings import Direct
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection


@dataclass(frozen=True, kw_only=True)
class OwnMatrices(AbstractRule):
    """s_l = strength * B_l e, with B_l drawn by the rule itself."""

    strength: float = 0.1
    """Factor of every signal."""

    wiring = Direct
    projects = False
    label = "own matrices"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Nothing is kept."""
        return _OwnMatrices(self.strength)


class _OwnMatrices(AbstractFeedback):
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        signals = []
        for number, call in enumerate(calls):
            generator = torch.Generator().manual_seed(number)
            b_DK = torch.randn(error.e_ND.shape[1], call.shape[-1], generator=generator)
            signals.append((self.strength * error.e_ND @ b_DK).reshape(call.shape))
        return signals
