"""The control without feedback: blocks keep their initial weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from odfa.engine.rules.base import AbstractFeedback, AbstractRule, Call
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection


class _Nothing(AbstractFeedback):
    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        return []


@dataclass(frozen=True, kw_only=True)
class Shallow(AbstractRule):
    """Only the head, and whatever the true gradient reaches without crossing a block, learns.

    The control that shows whether hidden layers learned at all: a rule that does not beat it did nothing.
    """

    name = "shallow"
    wiring = "none"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Nothing to set up."""
        return _Nothing()
