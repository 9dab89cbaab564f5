"""A digital projection whose matrix is rebuilt from its key, chunk by chunk."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from odfa.errors import ConfigError
from odfa.keys import fingerprint, numpy_generator
from odfa.project.base import AbstractProjection
from odfa.project.digital import DigitalSettings
from odfa.project.rows import check_seed, check_shape
from odfa.saved import State
from odfa.sparse import few_nonzeros

_CHUNK = 256
"""Columns drawn, stored and multiplied at a time: part of the key, never change it."""
_STREAM = int.from_bytes(b"gauss")


class Gaussian(AbstractProjection):
    """p_NM = e_ND B_DM with B_dm ~ N(0, 1), independent, named by (seed, num_inputs).

    Columns come in chunks of 256 from a generator keyed by (seed, num_inputs, chunk), so that a wider projection begins
    with the columns of a narrower one, and any part can be rebuilt bit for bit.

    >>> Gaussian(seed=0).shaped(10, 3).project(torch.eye(10)).shape
    torch.Size([10, 3])
    """

    def __init__(self, seed: int = 0, *, stored: bool = True) -> None:
        """Name the matrix.

        Args:
            seed: key of the matrix.
            stored: keep the matrix (4 bytes per entry) after its first use; if False every call draws it again, about
                5 ns per entry, and holds one chunk at a time. The results are the same bit for bit.

        Raises:
            ConfigError: `seed` is not an integer.
        """
        check_seed(seed)
        self._seed, self._stored = seed, stored
        self._fingerprint = ""
        self._chunks: list[Tensor] = []

    def __repr__(self) -> str:
        return self.identity

    def __getstate__(self) -> State:
        return {**vars(self), "_chunks": []}  # copies and pickles carry the key, not the matrix

    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        """The projection of this key with `num_inputs` rows and `num_outputs` columns.

        Raises:
            ConfigError: a width is not a positive integer.
        """
        check_shape(num_inputs, num_outputs)
        shaped = copy.copy(self)
        shaped.num_inputs, shaped.num_outputs = num_inputs, num_outputs
        shaped._fingerprint = fingerprint(shaped._draw(0).numpy())
        return shaped

    @property
    def identity(self) -> str:
        """Key, inputs, and a hash of the first chunk; a machine that draws other numbers has another identity."""
        if self.num_inputs is None:
            return f"gaussian(seed={self._seed})"
        return f"gaussian(seed={self._seed}, inputs={self.num_inputs}, sha={self._fingerprint})"

    def matrix(self) -> Tensor:
        """B_DM in float32.

        Raises:
            ConfigError: the projection has no shape yet.
        """
        return torch.cat([chunk_Dm for _, chunk_Dm in self._columns(torch.device("cpu"))], dim=1)

    def _project(self, e_ND: Tensor) -> Tensor:
        # chunk by chunk even where all are stored: one product with the whole matrix could round otherwise
        p_NM = e_ND.new_empty((len(e_ND), self._width))
        few = few_nonzeros(e_ND)
        for start, chunk_Dm in self._columns(e_ND.device):
            chunk_Dm = chunk_Dm.to(e_ND.dtype)
            p_NM[:, start : start + chunk_Dm.shape[1]] = e_ND @ chunk_Dm if few is None else few.times(chunk_Dm)
        return p_NM

    @property
    def _width(self) -> int:
        if self.num_outputs is None:
            raise ConfigError("this projection has no shape yet; use projection.shaped(num_inputs, num_outputs) first")
        return self.num_outputs

    def _columns(self, device: torch.device) -> Iterator[tuple[int, Tensor]]:
        starts = range(0, self._width, _CHUNK)
        if not self._stored:
            yield from ((start, self._trimmed(start).to(device)) for start in starts)
            return
        if not self._chunks or self._chunks[0].device != device:
            self._chunks = [self._trimmed(start).to(device) for start in starts]
        yield from zip(starts, self._chunks, strict=True)

    def _trimmed(self, start: int) -> Tensor:
        # cloned, so that stored and redrawn chunks have the same memory layout and give the same rounding
        return self._draw(start // _CHUNK)[:, : self._width - start].clone(memory_format=torch.contiguous_format)

    def _draw(self, chunk: int) -> Tensor:
        # always 256 columns, also of a last chunk that is cut: a generator fills row by row, so fewer columns would be
        # other numbers
        assert self.num_inputs is not None
        generator = numpy_generator(_STREAM, self._seed, self.num_inputs, chunk)
        return torch.from_numpy(generator.standard_normal((self.num_inputs, _CHUNK), dtype="float32"))


@dataclass(frozen=True, kw_only=True)
class GaussianSettings(DigitalSettings, kind="gaussian"):
    """Independent N(0, 1) entries, drawn from the key and stored (4 D M bytes)."""

    def bare(self) -> Gaussian:
        """`Gaussian(seed)` with this key, without a shape."""
        return Gaussian(seed=self.seed)
