"""The control with all of the gradient: ordinary training."""

from dataclasses import dataclass

from torch import nn

from odfa.engine.rules.base import AbstractFeedback, AbstractRule
from odfa.engine.wirings import Unfed
from odfa.errors import ConfigError
from odfa.project import AbstractProjection


@dataclass(frozen=True, kw_only=True)
class Backprop(AbstractRule, kind="backprop"):
    """Backpropagation: the true gradient flows through all blocks. A word for runs and tables; no `DFA` is attached."""

    wiring = Unfed
    projects = False
    cuts = False
    label = "backpropagation"
    colour = "#000000"

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """Everything; nothing is projected."""
        return "all: true gradient, no projection"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Refuse: a handle would cut the gradients that this rule learns by.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "rule: backprop is ordinary training, where gradients flow between blocks, and DFA cuts them; train the "
            "model without DFA, or run it inside dfa.passthrough() of another rule"
        )
