"""What the hooks, the measurement and the status table know of the handle that owns them."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from odfa.engine.linears import LinearFeedback
from odfa.engine.membership import Membership
from odfa.engine.paths import Cut
from odfa.engine.rules import AbstractFeedback, AbstractRule
from odfa.engine.step import Step, Tie
from odfa.error import Tap

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
    feedback: AbstractFeedback
    mode: Mode
    recompute: Recompute
    input_gradient: InputGradient
    unread: Unread
    members: Membership | None

    @property
    def tap(self) -> Tap:
        """The first tap."""
        ...

    def wants_trace(self) -> bool:
        """Whether the next pass has to be traced."""
        ...

    def note(self, step: Step, output: Any) -> list[Cut]:
        """Read a traced pass; returns the edges of its graph that must be cut."""
        ...

    def note_calls(self, step: Step, output: Any) -> None:
        """Look at a pass that was not traced."""
        ...

    def answer(self, step: Step, tie: Tie) -> list[Tensor]:
        """Signals for one output error."""
        ...

    def record(self, tie: Tie, end: Tensor, targets: Sequence[Tensor]) -> None:
        """Keep what the measurement in progress differentiates."""
        ...

    def measured(self, grad_y: Tensor | None, signals: Sequence[Tensor]) -> None:
        """Take local gradients for the measurement in progress."""
        ...

    def complain_unread(self, path: str) -> str:
        """What to say when a gradient comes from a place that is not read."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All counters and random state of the feedback."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that is known to fit."""
        ...
