"""What encoders have in common that draw at random."""

from typing import ClassVar

import torch

from odfa import arguments
from odfa.encode.base import AbstractEncoder
from odfa.keys import torch_generator
from odfa.saved import State, check_state


class DrawingEncoder(AbstractEncoder):
    """An encoder whose draws are keyed by its seed and the number of the call.

    All random state is one integer, and a resumed run draws what it would have drawn.
    """

    stream: ClassVar[int]
    """Keeps the draws of different encoders with one seed apart."""

    def __init__(self, seed: int) -> None:
        """Begin with call number 0 under the key `seed`.

        Raises:
            ConfigError: `seed` is no integer of at least 0.
        """
        arguments.whole("seed", seed, 0)
        self._seed, self._calls = seed, 0

    def next_generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator of this call, on the processor or on `device`; the next call has another."""
        generator = torch_generator(self.stream, self._seed, self._calls, device=device)
        self._calls += 1
        return generator

    def state_dict(self) -> State:
        """Number of calls that have drawn."""
        return {"calls": self._calls}

    def load_state_dict(self, state: State) -> None:
        """Continue after `state["calls"]` calls.

        Raises:
            CheckpointError: there is no such number.
        """
        check_state(state, {"calls": int}, "encoder")
        self._calls = state["calls"]
