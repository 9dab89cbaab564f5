"""What the hooks, the measurement and the status table know of the handle that owns them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch import Tensor, nn

from odfa.engine.linears import LinearFeedback
from odfa.engine.membership import Membership
from odfa.engine.rules import AbstractFeedback, AbstractRule
from odfa.engine.step import Step, Tie
from odfa.engine.wirings import AbstractWiring
from odfa.error import Tap

if TYPE_CHECKING:
    from odfa.engine.executions import AbstractExecution, Stream
    from odfa.engine.passes import Passes

Mode = Literal["learn", "through", "measure"]
Recompute = bool | Literal["stream"]
InputGradient = Literal["refuse", "none", "local"]
Unread = Literal["refuse", "allow"]


class Handle(Protocol):
    """A model with its blocks, taps and rule; `odfa.DFA` is the one that users hold."""

    model: nn.Module
    blocks: dict[str, nn.Module]
    last_block: str
    branches: dict[str, nn.Module]
    linears: LinearFeedback
    taps: tuple[Tap, ...]
    rule: AbstractRule
    at_work: AbstractFeedback
    mode: Mode
    input_gradient: InputGradient
    unread: Unread
    passes: "Passes"
    execution: "type[AbstractExecution]"
    second_run: "Stream | None"
    """While the model runs a second time, inside backward: whose blocks learn."""

    @property
    def tap(self) -> Tap:
        """The first of the places where the error is read."""
        ...

    @property
    def members(self) -> Membership | None:
        """Which parameter learns from what; None before the first traced pass."""
        ...

    def new_wiring(self) -> AbstractWiring:
        """The rule's wiring, for one forward pass."""
        ...

    def new_execution(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "AbstractExecution":
        """The execution for one forward pass on these arguments."""
        ...

    def answer(self, step: Step, tie: Tie) -> list[Tensor]:
        """Signals for one output error."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All counters and random state of the feedback."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that is known to fit."""
        ...
