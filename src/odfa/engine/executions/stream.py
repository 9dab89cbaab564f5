"""Training that keeps no activations: the model runs once for the error and once more to learn, block by block."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from odfa.engine.executions.again import Pass
from odfa.engine.executions.base import AbstractExecution, Running, refuse_cache
from odfa.engine.grad_mode import recording, resume_recording, stop_recording
from odfa.engine.leaves import leaf_of, side_of
from odfa.engine.record import Record, Tie
from odfa.engine.tensors import first_tensor, map_tensors
from odfa.engine.wirings import AbstractWiring, Arrival, Graphs, on_devices
from odfa.errors import MatchError


class PassedLast(BaseException):
    """Every block has learned; what lies behind the last one need not run again."""


class Stream(AbstractExecution):
    """The first run builds no graph in blocks. As soon as backward knows the signals, the model runs a second time.

    In the second run each block builds its own graph, learns from its signal, and hands its output on without history:
    at any time one block's activations are alive, whatever the depth.
    """

    runs_blocks_again = True
    runs_model_again = True
    records: ClassVar[bool] = True

    def __init__(
        self, handle: Running, wiring: AbstractWiring, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        super().__init__(handle, wiring, args, kwargs)
        self._handle, self._pass = handle, Pass(args, kwargs)
        self._without_graph = False
        self._signals: list[Tensor] = []
        """Second run: those of the calls that have not run again yet, in the order of the calls."""
        self.calls = 0
        """Calls of blocks in the first run, once backward needs them."""
        self._at_inputs: list[Tensor] | None = None
        """While signals cross blocks: what they are at the inputs of the blocks that have run again."""
        self._begin: Tensor | None = None
        """Then: what the block that runs next gets in place of the output of the one before it."""

    # first run

    def before_block(
        self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, watching: bool
    ) -> None:
        """Switch autograd off.

        Raises:
            MatchError: the block writes to a key-value cache.
        """
        if watching:
            return
        refuse_cache(name, kwargs)
        self._without_graph = True
        stop_recording()

    def after_block(self, *, watching: bool) -> bool:
        """Switch autograd on again. Every block runs a second time, also one whose graph was needed to find the batch.

        A block that somebody else ran without a graph is not ours to report.
        """
        if self._without_graph:
            self._without_graph = False
            resume_recording()
            return True
        return watching and torch.is_grad_enabled()

    def at_tap(self, step: Record, tie: Tie, output: Tensor, targets: Sequence[Tensor]) -> None:
        """All blocks run again at once, so their error has to be complete when the first gate is reached.

        Raises:
            MatchError: a block ran between two taps.
        """
        if step.taps.ties and tie.calls:
            raise MatchError("recompute='stream' reads the error behind all blocks; use recompute=True for this model")

    # backward

    def feed(self, step: Record, tie: Tie, grad_y: Tensor | None, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """Let the blocks learn now if the wiring knows their signals, otherwise send the signal on its way to them."""
        known = self.wiring.for_calls(step, tie, signals)
        if known is None:
            return self.wiring.to_targets(step, tie, signals)
        self._run(known)
        return []

    def at_arrival(self, step: Record, arrives: Arrival, graphs: Graphs, delta: Tensor) -> list[Tensor | None]:
        """The signal has come to the last block's output: let every block learn from it."""
        self.calls = len(step.calls)
        signals = arrives(delta, self)
        if signals is not None:
            self._run(on_devices(signals, (call.device for call in step.calls)))
        return [None] * graphs.calls

    def at_inputs(self, signals: Sequence[Tensor]) -> list[Tensor]:
        """Run the model once more, only for the gradients at the inputs of the blocks behind the first."""
        self._at_inputs = []
        try:
            self._run(signals)
            return self._at_inputs
        finally:
            self._at_inputs, self._begin = None, None

    # second run

    def _run(self, signals: Sequence[Tensor]) -> None:
        """Run the model again; `handle.second_run` tells the hooks to call `learn` at every block."""
        self._signals, self._handle.second_run = list(signals), self
        try:
            with recording(), self._pass.as_before():
                self._handle.model(*self._pass.args, **self._pass.kwargs)
        except PassedLast:
            pass
        finally:
            self._signals, self._handle.second_run = [], None

    def learn(self, output: Any, *, shared: bool) -> Any:
        """Let the block that returned `output` learn from its signal; returns the output without history.

        Args:
            shared: blocks read something that learns, whose graph the next block needs once more.

        Raises:
            PassedLast: this was the last block.
        """
        main, signal = first_tensor(output), self._signals.pop(0)
        assert main is not None  # it had one in the first run
        if self._at_inputs is not None:
            return self._cross(self._at_inputs, output, main, signal.to(main))
        if main.requires_grad:  # a frozen block in front of everything that learns has no graph
            torch.autograd.backward(main, signal.to(main), retain_graph=shared)
        if not self._signals:
            raise PassedLast
        return map_tensors(output, lambda t: leaf_of(t) if t is main else side_of(t))

    def _cross(self, at_inputs: list[Tensor], output: Any, main: Tensor, signal: Tensor) -> Any:
        """The same for a block that does not learn in this run: the signal at its input is kept."""
        if self._begin is not None:
            (found,) = torch.autograd.grad(main, self._begin, signal, allow_unused=True)
            at_inputs.append(torch.zeros_like(signal) if found is None else found)
        if not self._signals:
            raise PassedLast
        begin = self._begin = leaf_of(main, asking=True)
        return map_tensors(output, lambda t: begin if t is main else side_of(t))
