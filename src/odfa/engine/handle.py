"""What the hooks, the measurement and the status table know of the handle that owns them."""

from typing import Any, Literal, Protocol

from torch import Tensor, nn

from odfa.engine.linears import LinearFeedback
from odfa.engine.membership import Membership
from odfa.engine.rules import AbstractFeedback, AbstractRule
from odfa.engine.step import Step
from odfa.error import Tap

Mode = Literal["learn", "through", "measure"]
Recompute = bool | Literal["stream"]


class Handle(Protocol):
    """A model with its blocks, tap and rule; `odfa.DFA` is the one that users hold."""

    model: nn.Module
    blocks: dict[str, nn.Module]
    last_block: str
    branches: dict[str, nn.Module]
    linears: LinearFeedback
    tap: Tap
    rule: AbstractRule
    feedback: AbstractFeedback
    mode: Mode
    recompute: Recompute
    members: Membership | None

    def answer(self, step: Step, grad_y: Tensor) -> list[Tensor]:
        """Signals for one output error."""
        ...

    def measured(self, step: Step, grad_y: Tensor) -> None:
        """Take a finished forward and its output error for the measurement in progress."""
        ...

    def note_membership(self, step: Step, y: Tensor) -> bool:
        """Trace which parameters are fed by which signal; True if this forward was traced."""
        ...

    def note_ahead(self, output: Any, gate_node: object) -> None:
        """Note the parameters between the gate and what the model returned."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All counters and random state of the feedback."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that is known to fit."""
        ...
