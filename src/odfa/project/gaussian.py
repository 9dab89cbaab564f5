"""A digital projection by independent normal numbers, each named by key, row and column."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from odfa import devices
from odfa.draws import Draws
from odfa.draws.accelerated import gather_normal, multiply_normal
from odfa.errors import ConfigError
from odfa.flow import Entries
from odfa.keys import fingerprint
from odfa.project.base import AbstractProjection
from odfa.project.digital import DigitalSettings
from odfa.project.rows import check_seed, check_shape
from odfa.saved import State
from odfa.sparse import Few, few_nonzeros
from odfa.structured import triton_runs_on

_CHUNK = 256
"""Columns multiplied at a time on a processor, a multiple of four."""
_GATHERED = 2**24
"""Numbers drawn at a time where rows are gathered."""
_STREAM = int.from_bytes(b"gauss")


class Gaussian(AbstractProjection):
    """p_NM = e_ND B_DM with B_dm ~ N(0, 1), independent, named by (seed, num_inputs).

    B_dm is the normal number of row d and column m of `odfa.draws.Draws`: a wider projection begins with the columns of
    a narrower one, and any part can be made anywhere, bit for bit the same on processors and accelerators.

    >>> Gaussian(seed=0).shaped(10, 3).project(torch.eye(10)).shape
    torch.Size([10, 3])
    """

    def __init__(self, seed: int = 0, *, stored: bool = True) -> None:
        """Name the matrix.

        Args:
            seed: key of the matrix.
            stored: keep the matrix (4 bytes per entry) on the rows' device after its first use. If False, on a
                processor every call draws it again, 256 columns at a time, and the results are the same bit for bit;
                on accelerators with Triton entries are made where they are multiplied and never in memory.

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
        draws, _ = shaped._shape()
        shaped._fingerprint = fingerprint(draws.normal(min(num_inputs, _CHUNK), _CHUNK).numpy())
        return shaped

    @property
    def identity(self) -> str:
        """Key, inputs, and a hash of the first 256 x 256 entries: whoever makes others has another identity."""
        if self.num_inputs is None:
            return f"gaussian(seed={self._seed})"
        return f"gaussian(seed={self._seed}, inputs={self.num_inputs}, sha={self._fingerprint})"

    def matrix(self) -> Tensor:
        """B_DM in float32.

        Raises:
            ConfigError: the projection has no shape yet.
        """
        draws, num_outputs = self._shape()
        return draws.normal(self.num_inputs or 0, num_outputs)

    def _takes(self, dtype: torch.dtype) -> bool:
        return dtype.is_floating_point or dtype == torch.int8

    def reads_half(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Where the device, or Triton's kernel, multiplies it so: the entries of the matrix are rounded to it."""
        return devices.multiplies(dtype, device) or (not self._stored and triton_runs_on(device))

    def _project(self, e_ND: Tensor) -> Tensor:
        draws, num_outputs = self._shape()
        if not self._stored and triton_runs_on(e_ND.device) and e_ND.dtype != torch.float64:
            dtype = e_ND.dtype if e_ND.dtype.is_floating_point else torch.float32
            p_NM = e_ND.new_empty((len(e_ND), num_outputs), dtype=dtype)
            multiply_normal(e_ND, p_NM, draws.key)
            return p_NM
        e_ND = e_ND.float() if e_ND.dtype == torch.int8 else e_ND
        few = few_nonzeros(e_ND)
        return self._by_columns(e_ND, e_ND.matmul) if few is None else self._gathered(few, e_ND)

    def _project_entries(self, entries: Entries) -> Tensor:
        draws, num_outputs = self._shape()
        gain_NF = entries.gain_NF
        if not self._stored and triton_runs_on(gain_NF.device) and gain_NF.dtype == torch.float32:
            p_NM = gain_NF.new_empty((len(gain_NF), num_outputs))
            gather_normal(entries.index_NF, gain_NF, p_NM, draws.key)
            return p_NM
        return self._gathered(entries, gain_NF)

    def _gathered(self, few: Few | Entries, like: Tensor) -> Tensor:
        if self._stored:
            return self._by_columns(like, few.times)
        # only the rows that are needed are drawn; each sum has the same terms in the same order as with all of them
        draws, num_outputs = self._shape()
        row_U, numbered = few.numbered()
        p_NM = like.new_empty((len(like), num_outputs))
        step = max(_CHUNK, _GATHERED // max(1, len(row_U)) // _CHUNK * _CHUNK)
        for start in range(0, num_outputs, step):
            part = slice(start, min(start + step, num_outputs))
            rows_Um = draws.normal_at(row_U, part.stop - start, first_column=start)
            p_NM[:, part] = numbered.times(rows_Um.to(like.dtype))
        return p_NM

    def _by_columns(self, like: Tensor, times: Callable[[Tensor], Tensor]) -> Tensor:
        """What `times` makes of parts of the matrix, put together."""
        if self._stored and like.device.type != "cpu":
            (matrix_DM,) = self._columns(like.device)
            return times(matrix_DM.to(like.dtype))
        # on a processor part by part even where all are stored: one product with the whole matrix could round otherwise
        _, num_outputs = self._shape()
        p_NM, start = like.new_empty((len(like), num_outputs)), 0
        for part_Dm in self._columns(like.device):
            stop = start + part_Dm.shape[1]
            p_NM[:, start:stop], start = times(part_Dm.to(like.dtype)), stop
        return p_NM

    def _columns(self, device: torch.device) -> Iterator[Tensor]:
        if not self._stored:
            yield from self._drawn(device, _CHUNK)
            return
        if not self._chunks or self._chunks[0].device != device:
            _, num_outputs = self._shape()
            self._chunks = []  # before the next are drawn, so that both are never in memory
            self._chunks = list(self._drawn(device, _CHUNK if device.type == "cpu" else num_outputs))
        yield from self._chunks

    def _drawn(self, device: torch.device, step: int) -> Iterator[Tensor]:
        draws, num_outputs = self._shape()
        assert self.num_inputs is not None
        if step >= num_outputs:
            yield draws.normal(self.num_inputs, num_outputs, device=device)
            return
        row_D = torch.arange(self.num_inputs, device=device)
        for start in range(0, num_outputs, step):
            yield draws.normal_at(row_D, min(step, num_outputs - start), first_column=start)

    def _shape(self) -> tuple[Draws, int]:
        if self.num_inputs is None or self.num_outputs is None:
            raise ConfigError("this projection has no shape yet; use projection.shaped(num_inputs, num_outputs) first")
        return Draws(_STREAM, self._seed, self.num_inputs), self.num_outputs


@dataclass(frozen=True, kw_only=True)
class GaussianSettings(DigitalSettings, kind="gaussian"):
    """Independent N(0, 1) entries, drawn from the key."""

    stored: bool = True
    """Keep the matrix, 4 D M bytes; otherwise its entries are made again wherever they are multiplied or gathered."""

    def bare(self) -> Gaussian:
        """`Gaussian(seed)` with this key, without a shape."""
        return Gaussian(seed=self.seed, stored=self.stored)
