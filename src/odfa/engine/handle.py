"""What the hooks, the measurement and the status table know of the handle that owns them."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from odfa.engine.compiled import CompiledBlocks
from odfa.engine.executions.base import AbstractExecution, Running
from odfa.engine.linears import LinearFeedback
from odfa.engine.membership import Membership
from odfa.engine.optimizer_steps import OptimizerSteps
from odfa.engine.passes import Passes
from odfa.engine.record import Tie
from odfa.engine.rules import AbstractFeedback, AbstractRule
from odfa.engine.step import Step
from odfa.engine.wirings import AbstractWiring
from odfa.error import Tap

Mode = Literal["learn", "through", "measure"]
Recompute = bool | Literal["stream"]
InputGradient = Literal["refuse", "none", "local"]
Unread = Literal["refuse", "allow"]


class Handle(Running, Protocol):
    """A model with its blocks, taps and rule; `odfa.DFA` is the one that users hold."""

    blocks: dict[str, nn.Module]
    last_block: str
    branches: dict[str, nn.Module]
    compiled: CompiledBlocks | None
    linears: LinearFeedback
    taps: tuple[Tap, ...]
    rule: AbstractRule
    at_work: AbstractFeedback
    mode: Mode
    input_gradient: InputGradient
    unread: Unread
    passes: Passes
    optimizer_steps: OptimizerSteps
    execution: type[AbstractExecution]

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

    def new_execution(
        self, wiring: AbstractWiring, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> AbstractExecution:
        """The execution for one forward pass on these arguments."""
        ...

    def take_targets(self) -> Tensor | None:
        """What was handed over for the forward pass that begins, once."""
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
