"""Sparse errors spread over all mirrors by a fast Hadamard transform, so that patterns carry much light.

An error over a vocabulary has few large entries: patterns of its code light a handful of mirrors of thousands, and what
these add to the reference is lost in the camera's noise. Spread, every pattern lights a third of them. Multiplexing by
Hadamard matrices is an old means against detectors' noise (Harwit & Sloane, Hadamard Transform Optics, 1979); random
signs before the transform make its outputs look alike whatever the rows are (Ailon & Chazelle, STOC 2006).
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from odfa import arguments
from odfa.encode.base import AbstractEncoder, EncoderSettings, check_rows
from odfa.encode.trit_planes import TritPlanes, TritPlanesSettings
from odfa.flow import Frames
from odfa.keys import torch_generator
from odfa.saved import State, check_state
from odfa.settings import SettingError

_STREAM = int.from_bytes(b"spread")


class Spread(AbstractEncoder):
    """Patterns of x = e T, T_DE = S_DD H_DE / sqrt(E): random signs S, the first D rows of a Hadamard matrix H.

    E is the power of two at or above D, and T T^t = 1. The projection behind is one of x, so rows of the error meet
    B = T A where A is the medium of E inputs; its entries are N(0, 1) if those of A are. T is electronic: E log2 E
    additions a row.

    >>> Spread(TritPlanes(4)).encode(torch.eye(3)).bits_NFD.shape
    torch.Size([3, 8, 4])
    """

    transforms = True

    def __init__(self, patterns: AbstractEncoder | None = None) -> None:
        """Put the transform before `patterns`, `TritPlanes()` unless given.

        Raises:
            ConfigError: `patterns` is no encoder.
        """
        if patterns is not None:
            arguments.kind("patterns", patterns, AbstractEncoder, "odfa.encode.Spread(odfa.encode.TritPlanes())")
        self._patterns = TritPlanes() if patterns is None else patterns
        self.name, self.signed = f"spread({self._patterns.name})", self._patterns.signed

    def __repr__(self) -> str:
        return self.name

    @property
    def patterns_per_sample(self) -> int:
        """As many as of a row that is not spread."""
        return self._patterns.patterns_per_sample

    def width(self, num_inputs: int) -> int:
        """E, the power of two at or above D, at least as wide as the patterns' own encoder makes of it."""
        return self._patterns.width(1 << (num_inputs - 1).bit_length())

    def encode(self, e_ND: Tensor) -> Frames:
        """Patterns of the spread rows; rows of zeros stay dark.

        Raises:
            ConfigError: `e_ND` is not a matrix of floating-point numbers with at least one column.
        """
        return self.encode_part(e_ND, 0)

    def encode_part(self, e_ND: Tensor, first_row: int) -> Frames:
        """Patterns of rows that follow `first_row` others of the same call."""
        return replace(self._patterns.encode_part(spread_rows(check_rows(e_ND)), first_row), encoder=self.name)

    def folded(self, matrix_EM: Tensor, num_inputs: int) -> Tensor:
        """B_DM = T_DE A_EM."""
        inner_EM = self._patterns.folded(matrix_EM, 1 << (num_inputs - 1).bit_length())
        return signs(num_inputs).to(matrix_EM)[:, None] * hadamard(inner_EM.T).T[:num_inputs]

    def state_dict(self) -> State:
        """That of the patterns' encoder."""
        return {"patterns": self._patterns.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such an encoder.
        """
        check_state(state, {"patterns": {str: object}}, "encoder")
        self._patterns.load_state_dict(state["patterns"])


def spread_rows(e_ND: Tensor) -> Tensor:
    """x_NE = e_ND S H / sqrt(E), E the power of two at or above D; |x| = |e| for every row."""
    num_inputs = e_ND.shape[1]
    extra = (1 << (num_inputs - 1).bit_length()) - num_inputs
    return hadamard(torch.nn.functional.pad(e_ND * signs(num_inputs).to(e_ND), (0, extra)))


def signs(num_inputs: int) -> Tensor:
    """The signs S, float32 (D,): those of fewer inputs are the first ones of more."""
    return 2.0 * torch.randint(0, 2, (num_inputs,), generator=torch_generator(_STREAM)).float() - 1.0


def hadamard(x_NE: Tensor) -> Tensor:
    """x_NE H_EE / sqrt(E), H Sylvester's matrix of order E, a power of two; its own inverse."""
    # H of order a b is the Kronecker product of those of orders a and b: two products with small matrices, which the
    # library does faster than log2 E passes of additions
    order = x_NE.shape[1]
    low = 1 << (order.bit_length() - 1) // 2
    x_Nab = x_NE.reshape(len(x_NE), order // low, low) @ _sylvester(low).to(x_NE)
    mixed_Nab: Tensor = _sylvester(order // low).to(x_NE) @ x_Nab
    return mixed_Nab.reshape(x_NE.shape) / math.sqrt(order)


def _sylvester(order: int) -> Tensor:
    matrix = torch.ones(1, 1)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


@dataclass(frozen=True, kw_only=True)
class SpreadSettings(EncoderSettings, kind="spread"):
    """A fast Hadamard transform of the error, then patterns of what it gives: much light for sparse errors."""

    patterns: EncoderSettings = field(default_factory=TritPlanesSettings)
    """How the spread error becomes patterns."""

    def __post_init__(self) -> None:
        if isinstance(self.patterns, SpreadSettings):
            raise SettingError("patterns", "expected an encoder that makes patterns, got spread; spread once")

    @property
    def code(self) -> str:
        """That of the patterns, with the word "spread" before it."""
        return f"spread {self.patterns.code}"

    @property
    def electronic(self) -> str:
        """The transform before the patterns."""
        return "a fast Hadamard transform of the error"

    def build(self, seed: int) -> Spread:
        """`Spread` before the encoder of `patterns`, whose draws have the key `seed`."""
        return Spread(self.patterns.build(seed))
