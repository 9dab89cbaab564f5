"""The contract of a learning rule."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from odfa.feedback import Axes
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state


@dataclass(frozen=True)
class Call:
    """One call of one block in one forward pass.

    `deferred` calls ran without a graph, inside reentrant activation checkpointing; their signal enters when autograd
    runs the block again. `axes` is where data flow showed the batch, where the feedback asked for it.
    """

    block: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    deferred: bool
    axes: Axes | None = None


class AbstractFeedback(ABC):
    """A rule at work: what it computes from an error, and the state it keeps."""

    projection: AbstractProjection | None = None

    @abstractmethod
    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        """One signal per call, of the call's shape (direct wiring), or one of the head input's shape (residual wiring).

        Raises:
            NonFinite: the error or a signal is not finite.
        """

    def doubts(self, block: str, shape: tuple[int, ...], lead: tuple[int, ...] | None) -> bool:
        """Whether data flow has to show where the batch lies in a block's output; `lead` None: once it is known."""
        return False

    @property
    def description(self) -> str:
        """What feeds the blocks, for the status table."""
        return self.projection.identity if self.projection else "nothing"

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such a feedback.
        """
        check_state(state, {}, "feedback")


class AbstractRule(ABC):
    """A named rule with its settings; `start` sets it to work on a model's head."""

    name: str
    wiring: Literal["direct", "residual", "none"]
    """direct: signals enter at every block's output. residual: one signal enters at the head's input, passes what lies
    behind the last block by true gradient, and goes from there to every block. none: blocks get nothing."""

    @abstractmethod
    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Set to work; everything is checked before the model is touched.

        Raises:
            MatchError: the rule does not fit this head.
            ConfigError: the rule's settings do not fit this head.
        """
