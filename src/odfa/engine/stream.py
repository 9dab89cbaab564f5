"""Training that keeps no activations: the model runs once for the error and once more to learn, block by block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from odfa.engine.leaves import leaf_of, side_of
from odfa.engine.tensors import first_tensor, map_tensors


class PassedLast(BaseException):
    """Every block has learned; what lies behind the last one need not run again."""


@dataclass
class Replay:
    """What a second run of the model needs: arguments, random state, and signals once they are known.

    In the second run each block builds its own graph, learns from its signal, and hands its output on without history:
    at any time one block's activations are alive, whatever the depth.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    random_state: Tensor = field(default_factory=torch.get_rng_state)
    device_states: tuple[list[int], list[Tensor]] = field(init=False)
    waiting: list[Tensor] = field(default_factory=list)
    """Signals of the calls that have not run again yet, in the order of the calls."""

    def __post_init__(self) -> None:
        self.device_states = get_device_states(*self.args, *self.kwargs.values())

    def run(self, model: nn.Module, signals: Sequence[Tensor]) -> None:
        """Run the model again; its hooks call `learn` at every block."""
        self.waiting = list(signals)
        with torch.enable_grad(), self._same_draws():
            try:
                model(*self.args, **self.kwargs)
            except PassedLast:
                pass
            finally:
                self.waiting = []

    def learn(self, output: Any, *, shared: bool) -> Any:
        """Let the block that returned `output` learn from its signal; returns the output without history.

        Args:
            shared: blocks read something that learns, whose graph the next block needs once more.

        Raises:
            PassedLast: this was the last block.
        """
        main, signal = first_tensor(output), self.waiting.pop(0)
        assert main is not None  # it had one in the first run
        if main.requires_grad:
            torch.autograd.backward(main, signal.to(main.dtype), retain_graph=shared)
        if not self.waiting:
            raise PassedLast
        return map_tensors(output, lambda t: leaf_of(t) if t is main else side_of(t))

    @contextmanager
    def _same_draws(self) -> Iterator[None]:
        """Dropout draws what it drew in the first run."""
        devices, states = self.device_states
        with torch.random.fork_rng(devices=devices):
            torch.set_rng_state(self.random_state)
            set_device_states(devices, states)
            yield
