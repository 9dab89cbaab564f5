"""Blocks stay connected, so that signals and true gradients can be compared on one graph."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from odfa.engine.alignment import Measurement
from odfa.engine.executions.base import AbstractExecution
from odfa.engine.handle import Handle
from odfa.engine.step import Step, Tie
from odfa.errors import MatchError


class Measure(AbstractExecution):
    """At the gate the local gradients are taken aside; then the same backward pass goes on as backpropagation."""

    connects = True

    def __init__(
        self, handle: Handle, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, measurement: Measurement
    ) -> None:
        super().__init__(handle, args, kwargs)
        self._measurement = measurement

    def check_deferred(self, name: str) -> None:
        """The true gradient needs the graph.

        Raises:
            MatchError: always.
        """
        raise MatchError(
            f"block {name} runs without a graph; to measure, use use_reentrant=False in activation checkpointing"
        )

    def at_tap(self, step: Step, tie: Tie, output: Tensor, targets: Sequence[Tensor]) -> None:
        """Tell the measurement what it will differentiate.

        Raises:
            MatchError: a block ran between two taps.
        """
        self._measurement.record(tie, output, targets)

    def feed(self, step: Step, tie: Tie, grad_y: Tensor | None, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """Nothing is fed: the measurement has taken the local gradients when this returns."""
        self._measurement.take_local(grad_y, signals)
        step.exact = True
        return [None] * tie.targets
