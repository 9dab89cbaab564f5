"""Blocks that get no signal."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from odfa.engine.calls import Call
from odfa.engine.record import Record, Tie
from odfa.engine.wirings.base import AbstractWiring, Brings, instead
from odfa.error import Tap


class Unfed(AbstractWiring):
    """Blocks are cut apart and get nothing; no gate is set, so that the loss reaches the head and what lies behind."""

    name = "none"
    feeds = False

    def names(self, calls: Sequence[Call], taps: Sequence[Tap]) -> list[str]:
        """No signal has a name, as there are none."""
        return []

    def to_targets(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """No target gets a gradient, as no gate is set."""
        return []

    def for_calls(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> Sequence[Tensor]:
        """No call has a signal."""
        return []

    def run_again(self, block: str) -> Brings:
        """Nothing, in place of the gradient: a reentrant checkpoint has run the block without a cut."""
        return partial(instead, None)

    def along_residual(self, step: Record, call: int, natural: Tensor) -> None:
        """Nothing, as at the block."""
