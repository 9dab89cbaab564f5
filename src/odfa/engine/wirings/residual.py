"""One signal for all blocks of a residual stream."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import Node

from odfa.engine.calls import Call
from odfa.engine.record import Record, Tie
from odfa.engine.wirings.base import AbstractWiring, Arrival, Brings
from odfa.engine.wirings.crossing import Crossing, hop, weighed
from odfa.error import Tap
from odfa.errors import ConfigError, MatchError


class Residual(AbstractWiring):
    """The gate at the tap gives one signal to the head's input; what arrives at the last block goes to every block.

    On its way from the head's input to the last block's output the signal passes whatever lies between them (a final
    norm, pooling) by true gradient. A gate at the last block's output then hands on what arrives, with `hops` after so
    many hops of credit across the blocks.
    """

    name = "residual"
    reads_head_input = True

    def __init__(self, rule: str, last_block: str, *, hops: int = 0) -> None:
        super().__init__(rule, last_block)
        self.hops, self.asks_inputs = hops, hops > 0
        self._head_input: Tensor | None = None
        self._head_shape = torch.Size()
        self._head_place = torch.device("cpu"), torch.float32
        self._arrived: Sequence[Tensor] = []
        """The signals of the calls so far as backward knows them; the last one is what arrived at the last block."""
        self._gates = 0
        """Gates at the last block's output: one for each of its calls. The signal arrives at the newest one."""

    @classmethod
    def check(cls, rule: str, taps: Sequence[Tap], *, at_model: bool, unread: str) -> None:
        """The error is read at the output of one head, and no loss reaches the blocks from elsewhere.

        Raises:
            MatchError: it is not.
        """
        for tap in taps:
            if tap.side != "output" or at_model:
                raise MatchError(f"rule {rule} reads the error at the head's output, got error_at={tap}")
        if len(taps) > 1 or unread == "allow":
            raise MatchError(
                f"rule {rule} sends one head's error along the stream, so it takes one place in error_at and "
                "unread='refuse'; use RandomFeedback() for several heads"
            )

    def names(self, calls: Sequence[Call], taps: Sequence[Tap]) -> list[str]:
        """One signal, from the error at the tap."""
        return [str(taps[0])]

    def check_output(self, block: str, shape: tuple[int, ...], earlier: Sequence[Tensor]) -> None:
        """One stream has one shape.

        Raises:
            MatchError: an earlier block returned another one.
        """
        different = next((s.shape for s in earlier if s.shape != shape), None)
        if different is not None:
            raise MatchError(
                f"rule {self.rule} sends one signal along a residual stream, but block {block} returned "
                f"{tuple(shape)} after {tuple(different)}; use RandomFeedback()"
            )

    def arrival(self, block: str) -> Arrival | None:
        """At the last block: its gate number, which tells the newest call from earlier ones of a shared block."""
        if block != self.last_block:
            return None
        self._gates += 1
        return partial(self._arrive, self._gates)

    def _arrive(self, number: int, delta: Tensor, crossing: Crossing) -> Sequence[Tensor] | None:
        """An earlier call of a shared last block hands nothing on: it has had the signal from the newest one."""
        if number != self._gates:
            return None
        signals: Sequence[Tensor] = [delta] * crossing.calls
        last = crossing.calls - 1
        # with as many hops as calls behind the first, another one would change nothing
        for _ in range(min(self.hops, last) if self.hop_weight else 0):
            self._arrived = signals  # ways around blocks hand on what their block gets
            self.crosses = True
            try:
                at_inputs = crossing.at_inputs(signals)
            finally:
                self.crosses = False
            signals = hop(delta, signals, at_inputs, bare=last in self.around)
        signals = weighed(delta, signals, self.hop_weight)
        self._arrived = signals if self.keeps_signals else []
        return signals

    def take_head_input(self, value: Tensor) -> None:
        """Kept until the tap is read; its shape, device and type for backward, too."""
        self._head_input, self._head_shape, self._head_place = value, value.shape, (value.device, value.dtype)

    def targets(self, step: Record) -> list[Tensor]:
        """What the head read.

        Raises:
            MatchError: another block ran last than the one that hands the signal on.
        """
        if step.calls and step.calls[-1].block != self.last_block:
            raise MatchError(
                f"block {step.calls[-1].block} ran last, expected {self.last_block}: rule {self.rule} hands its signal "
                "on from the last block; list the blocks in running order, blocks=[first, …, last]"
            )
        return [] if self._head_input is None else [self._head_input]

    def head_input(self) -> Node | None:
        """The node that made it; None before the head has run."""
        return None if self._head_input is None else self._head_input.grad_fn

    def drop_graphs(self) -> None:
        """Forget what the head read."""
        super().drop_graphs()
        self._head_input = None

    def check_signals(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> None:
        """The one signal has as many values as what the head read.

        Raises:
            ConfigError: it has more or fewer.
        """
        if signals[0].numel() != self._head_shape.numel():
            raise ConfigError(
                f"rule {self.rule}: expected a signal of shape {tuple(self._head_shape)}, that of the head's input, "
                f"got {tuple(signals[0].shape)}; return one row of the head's width for each row of the error"
            )

    def to_targets(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """The one signal, at the head's input."""
        self._arrived = []
        return [signals[0].reshape(self._head_shape).to(*self._head_place)]

    def for_calls(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> None:
        """Not known at the gate: the signal has yet to come to the last block."""

    def run_again(self, block: str) -> Brings:
        """The last block is run again first, and the signal arrives there; the others get the same one."""
        return self._same_for_all

    def _same_for_all(self, delta: Tensor) -> list[Tensor | None]:
        if not self._arrived:
            self._arrived = [delta]
        return [self._arrived[-1].to(delta)]

    def along_residual(self, step: Record, call: int, natural: Tensor) -> Tensor:
        """The signal of all blocks; around the last one it is what arrives there by itself.

        Raises:
            MatchError: backward came there before the signal was known.
        """
        if call == len(step.calls) - 1:
            return natural
        if not self._arrived:
            raise MatchError(f"the residual around block {step.calls[call].block} was reached before its signal")
        own = self._arrived[call] if call < len(self._arrived) else self._arrived[-1]
        return own.to(natural)
