"""The contract of a wiring."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import Node

from odfa.engine.calls import Call
from odfa.engine.record import Record, Tie
from odfa.engine.wirings.crossing import Crossing
from odfa.error import Tap
from odfa.errors import MatchError

Arrival = Callable[[Tensor, Crossing], Sequence[Tensor] | None]
"""The gradient that arrives at a block's output, and the blocks that it may cross → the signal of each call, in running
order; None: not from this call."""
Brings = Callable[[Tensor], Sequence[Tensor | None]]
"""A gate's backward: the gradient that arrives at it → the gradients of its inputs."""


class AbstractWiring(ABC):
    """How the signals of one forward pass get to its blocks; made new for every pass, of which it keeps what it needs.

    A rule names its wiring. The methods are called in this order:

    - attaching: `check`;
    - forward: `check_output` and `arrival` at each block's output, `take_head_input` at the head, `targets` at a tap;
    - backward, when the gate at a tap is reached: `check_signals`, `keep`, then `to_targets`, or `for_calls` where
      blocks run again; after that `along_residual` at a way around a block, and `run_again` where a checkpoint runs a
      block again.
    """

    name: ClassVar[str]
    """What the status table calls it."""
    feeds: ClassVar[bool] = True
    """False: blocks get nothing, and no gate is set at the tap."""
    reads_head_input: ClassVar[bool] = False
    """The signal enters at the head's input, so the head's own gradient stops there."""

    asks_inputs = False
    """Signals cross blocks: what goes on from a block asks for a gradient, so that the next block can give it one."""

    def __init__(self, rule: str, last_block: str) -> None:
        self.rule, self.last_block = rule, last_block
        self.around: Set[int] = frozenset()
        """Calls around which a residual leads that is added behind the block."""
        self.begins: list[Tensor] = []
        """Where signals cross blocks: what went on in place of each block's output."""
        self.crossing: Mapping[torch.device, Tensor] = {}
        """What tells compiled code whether signals cross blocks now, on each device."""
        self._crosses = False
        self.hop_weight = 1.0
        """What the hops of this pass are multiplied by; the rule says it with its signals."""
        self.keeps_signals = False
        """Signals are needed again after the gate: by residuals around blocks, or by a measurement."""

    @property
    def crosses(self) -> bool:
        """Signals cross blocks now: what arrives at a mark between two blocks is read there, and not refused."""
        return self._crosses

    @crosses.setter
    def crosses(self, now: bool) -> None:
        self._crosses = now
        for flag in self.crossing.values():
            flag.data.fill_(now)  # `data` has a version of its own: the flag is saved for backward

    @classmethod  # noqa: B027 - most work from anywhere
    def check(cls, rule: str, taps: Sequence[Tap], *, at_model: bool, unread: str) -> None:
        """Look at where the error is read, before the model is touched; `at_model`: at what the model returns.

        Raises:
            MatchError: this wiring cannot work from there.
        """

    @abstractmethod
    def names(self, calls: Sequence[Call], taps: Sequence[Tap]) -> list[str]:
        """One name per signal of the rule, for the record of the step."""

    # forward

    def check_output(self, block: str, shape: tuple[int, ...], earlier: Sequence[Tensor]) -> None:  # noqa: B027 - any may fit
        """Look at a block's output beside those of the blocks that ran before it.

        Raises:
            MatchError: the signals cannot fit all of them.
        """

    def arrival(self, block: str) -> Arrival | None:
        """What to do with the gradient that arrives at this block's output; None: nothing arrives there by itself."""
        return None

    def take_head_input(self, value: Tensor) -> None:  # noqa: B027 - see `reads_head_input`
        """What the head reads, with its history; called where `reads_head_input`."""

    def targets(self, step: Record) -> list[Tensor]:
        """The tensors that the gate at a tap is tied to, so that backward goes on into their histories.

        Raises:
            MatchError: another block ran last than this wiring can start from.
        """
        return step.sources

    def head_input(self) -> Node | None:
        """Where what the head read comes from, if the signal enters there."""
        return None

    def check_deferred(self, block: str) -> None:
        """Somebody else runs a block without a graph (reentrant checkpointing).

        Raises:
            MatchError: signals cross blocks, which needs the graph.
        """
        if self.asks_inputs:
            raise MatchError(
                f"block {block} runs without a graph, and rule {self.rule} takes gradients at block inputs (hops); use "
                "use_reentrant=False in activation checkpointing, or DFA(recompute=True)"
            )

    def drop_graphs(self) -> None:
        """Forget what keeps a graph in memory: a tap has answered, or the forward pass is over."""
        self.begins = []

    # backward

    def keep(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> None:  # noqa: B027 - most need none
        """Keep the signals of this tap's calls if they are needed again."""

    def check_signals(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> None:  # noqa: B027 - any may fit
        """Compare the shapes of the rule's signals with where they go.

        Raises:
            ConfigError: one has another shape.
        """

    @abstractmethod
    def to_targets(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of what `targets` returned, from the rule's signals."""

    @abstractmethod
    def for_calls(self, step: Record, tie: Tie, signals: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """One signal for each of the tap's calls, if the gate knows them; None if they are known at `arrival` only."""

    @abstractmethod
    def run_again(self, block: str) -> Brings:
        """Backward of the gate behind a block that reentrant checkpointing has just run again."""

    @abstractmethod
    def along_residual(self, step: Record, call: int, natural: Tensor) -> Tensor | None:
        """What goes along a residual around call number `call`, where the gradient `natural` would go; None: nothing.

        Raises:
            MatchError: backward came there before the signal was known.
        """


def instead(signal: Tensor | None, _grad: Tensor) -> list[Tensor | None]:
    """A gate's backward that puts `signal` in the place of the gradient."""
    return [signal]
