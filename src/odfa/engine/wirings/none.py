"""No signal at all."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from odfa.engine.calls import Call
from odfa.engine.step import Step, Tie
from odfa.engine.wirings.base import AbstractWiring, Brings, instead
from odfa.error import Tap


class Unfed(AbstractWiring):
    """Blocks are cut apart and get nothing; no gate is set, so that the loss reaches the head and what lies behind."""

    name = "none"
    feeds = False

    def names(self, calls: Sequence[Call], taps: Sequence[Tap]) -> list[str]:
        """There are no signals."""
        return []

    def to_targets(self, step: Step, tie: Tie, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """There is no gate."""
        return []

    def for_calls(self, step: Step, tie: Tie, signals: Sequence[Tensor]) -> Sequence[Tensor]:
        """There are none."""
        return []

    def run_again(self, block: str) -> Brings:
        """Nothing, in place of the gradient: a reentrant checkpoint has run the block without a cut."""
        return partial(instead, None)

    def along_residual(self, step: Step, call: int, natural: Tensor) -> None:
        """Nothing, as at the block."""
