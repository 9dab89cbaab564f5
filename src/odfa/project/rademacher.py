"""Exact independent signs, made on the fly from a counter: no matrix, no structure."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from odfa.errors import ConfigError
from odfa.flow import Entries
from odfa.keys import mix
from odfa.project.base import AbstractProjection
from odfa.project.digital import DigitalSettings
from odfa.project.rows import check_seed, check_shape
from odfa.project.ternary_rows import split_ternary
from odfa.structured import kernels_available, triton_runs_on
from odfa.structured.accelerated import gather_signs, sign_rows
from odfa.structured.counter import entries, entries_at

_STREAM = int.from_bytes(b"signs")
_CHUNK = 256
"""Columns made at a time where real rows are multiplied."""
_GATHERED = 2**18
"""Signs made at a time where rows of the matrix are gathered."""


class Rademacher(AbstractProjection):
    """p_NM = e_ND B_DM with B_dm = ±1, independent, bit by bit from a counter keyed by (seed, num_inputs).

    Ternary rows (with an encoder before it, or int8 rows of -1, 0, 1) are projected exactly by counting bits, 64
    entries at a time, on numba; real rows are multiplied with columns made as ±1.0, 256 at a time; on
    accelerators Triton's kernel makes the signs where it multiplies them. Nothing is stored.

    >>> Rademacher(seed=0).shaped(10, 3).project(torch.eye(10)).abs().unique()
    tensor([1.])
    """

    def __init__(self, seed: int = 0) -> None:
        """Name the matrix.

        Raises:
            ConfigError: `seed` is not an integer.
        """
        check_seed(seed)
        self._seed = seed

    def __repr__(self) -> str:
        return self.identity

    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        """The projection of this key with `num_inputs` rows and `num_outputs` columns.

        Raises:
            ConfigError: a width is not a positive integer below 2^32.
        """
        check_shape(num_inputs, num_outputs)
        if max(num_inputs, num_outputs) >= 2**32:
            raise ConfigError(f"expected widths below 2^32, got {num_inputs} x {num_outputs}")
        shaped = copy.copy(self)
        shaped.num_inputs, shaped.num_outputs = num_inputs, num_outputs
        return shaped

    @property
    def identity(self) -> str:
        """Key and inputs; the counter's generator is integer arithmetic and the same everywhere."""
        return f"rademacher(seed={self._seed}" + (f", inputs={self.num_inputs})" if self.num_inputs else ")")

    def matrix(self) -> Tensor:
        """B_DM in float32.

        Raises:
            ConfigError: the projection has no shape yet.
        """
        key, num_outputs = self._shape()
        return torch.from_numpy(entries(key, range(num_outputs), self.num_inputs or 0).astype(np.float32))

    def _takes(self, dtype: torch.dtype) -> bool:
        return dtype.is_floating_point or dtype == torch.int8

    def _project(self, e_ND: Tensor) -> Tensor:
        key, num_outputs = self._shape()
        if triton_runs_on(e_ND.device) and e_ND.dtype != torch.float64:
            dtype = e_ND.dtype if e_ND.dtype.is_floating_point else torch.float32
            p_NM = e_ND.new_empty((len(e_ND), num_outputs), dtype=dtype)
            sign_rows(e_ND, p_NM, key)
            return p_NM
        # counted results are float32, which float64 rows must not be cut to
        ternary = split_ternary(e_ND) if e_ND.device.type == "cpu" and kernels_available() else None
        if ternary is not None and e_ND.dtype != torch.float64:
            return _counted(key, *ternary, num_outputs)
        e_ND = e_ND.float() if e_ND.dtype == torch.int8 else e_ND
        p_NM = e_ND.new_empty((len(e_ND), num_outputs))
        for start in range(0, num_outputs, _CHUNK):
            columns = range(start, min(num_outputs, start + _CHUNK))
            signs_Dm = torch.from_numpy(entries(key, columns, e_ND.shape[1])).to(e_ND.device, e_ND.dtype)
            p_NM[:, start : columns.stop] = e_ND @ signs_Dm
        return p_NM

    def _project_entries(self, entries: Entries) -> Tensor:
        key, num_outputs = self._shape()
        index_NF, gain_NF = entries.index_NF, entries.gain_NF
        p_NM = gain_NF.new_zeros((len(gain_NF), num_outputs))
        if triton_runs_on(gain_NF.device) and gain_NF.dtype == torch.float32:
            gather_signs(index_NF, gain_NF, p_NM, key)
            return p_NM
        step = max(1, _GATHERED // num_outputs)
        for start in range(0, len(p_NM), step):
            rows = slice(start, start + step)
            for index_n, gain_n in zip(index_NF[rows].unbind(1), gain_NF[rows].unbind(1), strict=True):
                is_minus_nM = entries_at(key, index_n, num_outputs)
                p_NM[rows] += torch.where(is_minus_nM, -gain_n[:, None], gain_n[:, None])
        return p_NM

    def reads_half(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Where Triton's kernels compute."""
        return triton_runs_on(device)

    def _shape(self) -> tuple[int, int]:
        if self.num_inputs is None or self.num_outputs is None:
            raise ConfigError("this projection has no shape yet; use projection.shaped(num_inputs, num_outputs) first")
        return mix(_STREAM, self._seed, self.num_inputs), self.num_outputs


def _counted(key: int, t_ND: Tensor, scale_N: Tensor, num_outputs: int) -> Tensor:
    # eight rows at a time, as the kernel takes them: it makes each random word once for all eight
    from odfa.structured.popcount import ROWS, bit_planes, project_codes

    p_NM = torch.empty((len(t_ND), num_outputs))
    t, scale, out = t_ND.numpy(), scale_N.numpy(), p_NM.numpy()
    if ((t < -1) | (t > 1)).any():
        raise ConfigError("expected int8 rows of -1, 0 and 1, got another value")
    lit_N = np.count_nonzero(t, axis=1)

    def work(first: int) -> None:
        rows = slice(first, min(len(t), first + ROWS))
        planes = bit_planes(t[rows])
        project_codes(key, planes, lit_N[rows], scale[rows], rows.stop - first, len(planes), 0, out[rows])

    starts = range(0, len(t), ROWS)
    if len(starts) > 1 and torch.get_num_threads() > 1:
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(work, starts))
    else:
        for first in starts:
            work(first)
    return p_NM


@dataclass(frozen=True, kw_only=True)
class RademacherSettings(DigitalSettings, kind="rademacher"):
    """Independent signs made from a counter; nothing stored."""

    def bare(self) -> Rademacher:
        """`Rademacher(seed)` with this key, without a shape."""
        return Rademacher(seed=self.seed)
