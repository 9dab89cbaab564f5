"""Blocks stay connected, so that signals and true gradients can be compared on one graph."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from odfa.engine.executions.base import AbstractExecution, Running
from odfa.engine.record import Record, Tie
from odfa.engine.wirings import AbstractWiring
from odfa.errors import MatchError


class Measuring(Protocol):
    """A measurement in progress, as far as an execution has to know it."""

    def record(self, tie: Tie, end: Tensor, targets: Sequence[Tensor]) -> None:
        """Called at a tap: its output and what its gate will be tied to."""
        ...

    def take_local(self, grad_y: Tensor | None, signals: Sequence[Tensor]) -> None:
        """Called in the gate's backward, before backpropagation goes on: the gradient there and the rule's signals."""
        ...


class Measure(AbstractExecution):
    """At the gate the local gradients are taken aside; then the same backward pass goes on as backpropagation."""

    connects = True

    def __init__(
        self,
        handle: Running,
        wiring: AbstractWiring,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        measurement: Measuring,
    ) -> None:
        super().__init__(handle, wiring, args, kwargs)
        self._measurement = measurement

    def check_deferred(self, name: str) -> None:
        """The true gradient needs the graph.

        Raises:
            MatchError: always.
        """
        raise MatchError(
            f"block {name} runs without a graph; to measure, use use_reentrant=False in activation checkpointing"
        )

    def at_tap(self, step: Record, tie: Tie, output: Tensor, targets: Sequence[Tensor]) -> None:
        """Tell the measurement what it will differentiate.

        Raises:
            MatchError: a block ran between two taps.
        """
        self._measurement.record(tie, output, targets)

    def feed(self, step: Record, tie: Tie, grad_y: Tensor | None, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """Nothing is fed: the measurement has taken the local gradients when this returns."""
        self._measurement.take_local(grad_y, signals)
        step.exact = True
        return [None] * tie.targets
