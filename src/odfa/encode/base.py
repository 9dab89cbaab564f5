"""Stage 2, the contract of encoders, which turn rows of the error into binary mirror patterns."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from odfa.errors import ConfigError
from odfa.flow import Entries, Frames
from odfa.saved import State, check_state
from odfa.settings import Settings

_BLOCK = 2**15
"""Entries handled at a time on a CPU: temporaries stay in cache, and torch does not wake its threads for so few."""
_DEVICE_BLOCK = 2**26
"""The same on a GPU, where an operation on few entries costs as much as one on many."""


class AbstractEncoder(ABC):
    """Turns error rows into binary patterns with gains; `frames.values()` is the vector that will be projected.

    Most encoders approximate the row itself. One that transforms it first says how wide its patterns are (`width`) and
    what a matrix behind them is to the row (`folded`): frames.values() @ A approximates e @ folded(A).
    """

    name: str
    """Short name, part of a projection's identity."""
    signed: bool = True
    """True if the patterns come in plus and minus, so that the code stands for the error's sign and static light
    cancels."""
    transforms: bool = False
    """True if rows are transformed before patterns are made of them, so that `folded` changes a matrix."""

    @property
    @abstractmethod
    def patterns_per_sample(self) -> int:
        """F, the number of binary patterns that one row takes."""

    def width(self, num_inputs: int) -> int:
        """Entries of the patterns made of a row of `num_inputs` entries: as many, unless the row is transformed."""
        return num_inputs

    def folded(self, matrix_EM: Tensor, num_inputs: int) -> Tensor:
        """B_DM of rows of D = `num_inputs` entries, from the matrix A_EM that their patterns meet: A itself, unless
        the row is transformed."""
        return matrix_EM

    @abstractmethod
    def encode(self, e_ND: Tensor) -> Frames:
        """Encode finite rows `e_ND`; the scale of each row travels in `gain_NF`, so encoding is scale-equivariant."""

    def encode_part(self, e_ND: Tensor, first_row: int) -> Frames:
        """The same of rows that follow `first_row` others, encoded before as parts of one call: in whatever parts rows
        come, their patterns are those of all rows at once."""
        return self.encode(e_ND)

    @property
    def lights_one(self) -> bool:
        """Whether every pattern has one lit entry at most, so that `entries` gives the code."""
        return False

    def entries(self, e_ND: Tensor) -> Entries:
        """The code of `encode` without its patterns, of encoders that light one entry a pattern; draws what it draws.

        Raises:
            ConfigError: patterns of this encoder have more.
        """
        raise ConfigError(f"{self.name} lights more than one entry a pattern; use encode(e_ND)")

    def state_dict(self) -> State:
        """Random state as plain integers (empty for deterministic encoders)."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such an encoder.
        """
        check_state(state, {}, "encoder")


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(Settings, ABC, room="odfa.encode", group="odfa.encoders"):
    """Which encoder: how error rows become binary patterns."""

    @property
    def code(self) -> str:
        """What an encoded error is called in tables, such as "ternary"."""
        return "encoded"

    @property
    def electronic(self) -> str:
        """What is computed electronically before the patterns, such as "a transform of the error"; often nothing."""
        return ""

    @abstractmethod
    def build(self, seed: int) -> AbstractEncoder:
        """The encoder, at the beginning of its random state; `seed` is the key of its draws, if it draws."""


def row_blocks(e_ND: Tensor) -> Iterator[slice]:
    """Rows to handle at a time: on a CPU few, on a GPU nearly always all."""
    step = max(1, (_BLOCK if e_ND.device.type == "cpu" else _DEVICE_BLOCK) // e_ND.shape[1])
    return (slice(start, start + step) for start in range(0, len(e_ND), step))


def check_rows(e_ND: Tensor) -> Tensor:
    """Rows fit to encode, detached from their autograd graph.

    Raises:
        ConfigError: not a matrix of floating-point numbers with at least one column.
    """
    if e_ND.ndim != 2 or not e_ND.is_floating_point() or e_ND.shape[1] == 0:
        raise ConfigError(
            f"expected floating-point rows of shape (N, D), got {e_ND.dtype} of shape {tuple(e_ND.shape)}"
        )
    return e_ND.detach()
