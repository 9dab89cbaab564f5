"""One signal for each block."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from odfa.engine.calls import Call
from odfa.engine.record import Record, Tie
from odfa.engine.wirings.base import AbstractWiring, Brings, instead
from odfa.error import Tap
from odfa.errors import ConfigError, MatchError


class Direct(AbstractWiring):
    """The gate at the tap is tied to every block's output, and gives each of them its own signal."""

    name = "direct"

    def __init__(self, rule: str, last_block: str) -> None:
        super().__init__(rule, last_block)
        self._kept: dict[int, Tensor] = {}
        """Signals that are needed again, by number of call."""
        self._deferred: dict[str, list[Tensor]] = {}
        """Signals of deferred calls by block, in order of calls; taken from the end, as checkpoints run backwards."""

    def names(self, calls: Sequence[Call], taps: Sequence[Tap]) -> list[str]:
        """One signal per call, so the blocks' names."""
        return [call.block for call in calls]

    def for_calls(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> Sequence[Tensor]:
        """The rule's signals, which are one per call."""
        return signals

    def check_signals(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> None:
        """Each has the shape of what its block returned.

        Raises:
            ConfigError: one has another shape.
        """
        for number, signal in zip(tie.calls, self.for_calls(step, tie, signals), strict=True):
            call = step.calls[number]
            if tuple(signal.shape) != call.shape:
                raise ConfigError(
                    f"rule {self.rule}: expected a signal of shape {call.shape} for block {call.block}, got "
                    f"{tuple(signal.shape)}; return one of call.shape for each call, in their order"
                )

    def keep(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> None:
        """Keep them by number of call, for residuals around the blocks."""
        if self.keeps_signals:
            self._kept |= dict(zip(tie.calls, self.for_calls(step, tie, signals), strict=True))

    def to_targets(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """A signal each for the calls that ran with a graph; those of the others wait until their blocks run again."""
        gradients: list[Tensor | None] = []
        for number, signal in zip(tie.calls, self.for_calls(step, tie, signals), strict=True):
            call = step.calls[number]
            waits = self._deferred.setdefault(call.block, []) if call.deferred else gradients
            waits.append(signal.to(call.device, call.dtype))
        return gradients

    def run_again(self, block: str) -> Brings:
        """The signal that has waited for this call."""
        return partial(instead, self._deferred[block].pop())

    def along_residual(self, step: Record, call: int, natural: Tensor) -> Tensor:
        """The signal of the block that the residual leads around."""
        if call not in self._kept:
            raise MatchError(f"the residual around block {step.calls[call].block} was reached before its signal")
        return self._kept[call].to(natural)
