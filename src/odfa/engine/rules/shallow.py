"""The control without feedback: blocks keep their initial weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback, AbstractRule
from odfa.engine.wirings import Unfed
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection


class _Nothing(AbstractFeedback):
    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        return []


@dataclass(frozen=True, kw_only=True)
class Shallow(AbstractRule, kind="shallow"):
    """Only the head, and whatever the true gradient reaches without crossing a block, learns.

    The control that shows whether hidden layers learned at all: a rule that does not beat it did nothing.
    """

    wiring = Unfed
    projects = False
    label = "shallow"
    colour = "#999999"
    # A head alone takes larger steps than a network: on digits its validation accuracy is 86 % at 1e-3, 96 % at 3e-2
    # and 97.5 % at 9e-2, where backpropagation is best at 9e-3. A control that is held back by its learning rate would
    # flatter every other rule.
    rate_factor = 30.0

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """Everything; nothing is projected."""
        return "all: true gradient of the head, blocks do not learn"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """The rule has no state, and the model is left as it is."""
        return _Nothing()
