"""What encoders have in common that draw at random."""

from typing import ClassVar

from torch import Tensor

from odfa import arguments
from odfa.draws import Draws
from odfa.encode.base import AbstractEncoder
from odfa.flow import Frames
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
        self._seed, self._calls, self._first_row = seed, 0, 0

    def next_draws(self) -> Draws:
        """The random numbers of this call, a row for each of its rows; the next call has others."""
        draws = Draws(self.stream, self._seed, self._calls).behind(self._first_row)
        self._calls += 1
        return draws

    def encode_part(self, e_ND: Tensor, first_row: int) -> Frames:
        """Patterns of rows that follow `first_row` others of the same call."""
        if first_row == 0:
            return self.encode(e_ND)
        calls = self._calls
        self._calls, self._first_row = calls - 1, first_row
        try:
            return self.encode(e_ND)
        finally:  # codes without draws have left the number of calls as it was
            self._calls, self._first_row = calls, 0

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
