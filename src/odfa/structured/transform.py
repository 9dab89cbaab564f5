"""Products with a structured Gaussian matrix: by compiled kernels where they run (numba on the processor, Triton on
accelerators), by plain torch elsewhere.

Shape letters: `N` rows · `D` inputs · `M` outputs.
"""

import math
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from odfa.errors import ConfigError
from odfa.keys import fingerprint
from odfa.structured.accelerated import Tables, transform_rows, triton_runs_on
from odfa.structured.keyed import UNIT, KeyedNumbers
from odfa.structured.portable import Diagonals, adjoint, forward
from odfa.structured.shifts import FEW, SLOTS, Shifts, groups, plan

_LINE = 64
"""Bytes of a cache line."""
_HUGE = 2**21
"""Bytes of a huge page."""
_STREAM_BYTES = 2**22
"""Results larger than this go past the caches."""
_WORTH_A_THREAD = 2**19
"""Points of work (rows x blocks x N) below which a second thread costs more than it brings."""


@dataclass
class Scratch:
    """Working memory of one thread: `R` rows of a vector in memory, `W` their entries with padding, `J` of a block."""

    z_RW: np.ndarray
    buf_RW: np.ndarray
    panel: np.ndarray
    """(rows of the columns' groups, 64) bytes."""
    spill_J: np.ndarray


class Structured:
    """p = x B with B_dm distributed as N(0, 1): two transforms per block and one for all, O(M log N) operations.

    The same key gives the same matrix on every path. Results of a path do not depend on the number of threads.
    """

    def __init__(self, seed: int, num_inputs: int) -> None:
        """Name the matrix.

        Raises:
            ConfigError: more than 2^24 inputs.
        """
        self.keyed = KeyedNumbers(seed, num_inputs)
        self._diagonals: dict[tuple[torch.dtype, torch.device], Diagonals] = {}
        self._on_devices: dict[torch.device, Tables] = {}
        self._tables: dict[int | None, np.ndarray] = {}
        self._scratch: dict[str, queue.SimpleQueue[Scratch]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, int]:
        return {"seed": self.keyed.seed, "num_inputs": self.keyed.num_inputs}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the first signs, the singular values and the order; a machine that draws others has another hash."""
        keyed = self.keyed
        words = [keyed.signs1, keyed.signs4, keyed.order.view(np.uint32), keyed.rows.view(np.uint32)]
        drawn = np.concatenate([*words, keyed.values.astype(np.float32).view(np.uint32).reshape(-1)])
        return fingerprint(drawn)

    def blocks(self, num_outputs: int) -> int:
        """Blocks of N outputs that so many outputs take."""
        return -(-num_outputs // self.keyed.points)

    def state_bytes(self, num_outputs: int) -> int:
        """Bytes of keyed numbers that projecting to so many outputs keeps: signs, order, table of singular values."""
        keyed = self.keyed
        units = keyed.points // UNIT
        table = max((array.nbytes for array in self._tables.values()), default=4 * keyed.values.size)
        return 4 * units * (3 + 2 * self.blocks(num_outputs)) + units + table + 8 * keyed.values.size

    def project(self, x_ND: Tensor, num_outputs: int, *, first_block: int = 0, out: Tensor | None = None) -> Tensor:
        """p_NM in the dtype of x_ND, float32 or float64; outputs start at block `first_block`.

        float32 on a CPU runs on the kernels where numba is installed, on accelerators on those of Triton where it is
        (which take half precisions and, answered in float32, int8 too); everything else in torch.
        """
        if triton_runs_on(x_ND.device) and x_ND.dtype != torch.float64:
            return self._accelerated(x_ND, num_outputs, first_block, out)
        if x_ND.device.type != "cpu" or x_ND.dtype != torch.float32 or not kernels_available():
            p_NM = self.portable(x_ND, num_outputs, first_block=first_block)
            return p_NM if out is None else out.copy_(p_NM)
        out_NM = self.empty(len(x_ND), num_outputs, torch.float32) if out is None else out
        x, ones_N = x_ND.detach().contiguous().numpy(), np.ones(len(x_ND), dtype=np.int64)
        self._run(x, out_NM.numpy(), np.float32(0), ones_N, ones_N.astype(np.float32), first_block=first_block)
        return out_NM

    def project_ternary(
        self,
        t_ND: Tensor,
        num_outputs: int,
        *,
        scale_N: Tensor | None = None,
        raw: bool = False,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Codes of -1, 0 and 1 (int8) by int16 arithmetic, about 0.5 % rms error.

        Returns:
            p_NM = scale * (t B) in float32; with `raw` int16 values and the scale of each row that they are worth.

        Raises:
            ConfigError: an entry is not -1, 0 or 1, the rows are not on the CPU, or the kernels are missing.
        """
        if not kernels_available():
            raise ConfigError("int16 arithmetic needs numba: pip install numba")
        if t_ND.device.type != "cpu":
            raise ConfigError(f"int16 arithmetic runs on the CPU, got rows on {t_ND.device}; use precision='float32'")
        from odfa.structured.kernels import count_lit

        t = t_ND.contiguous().numpy()
        lit_N = np.empty(len(t), dtype=np.int64)
        if not count_lit(t, lit_N):
            raise ConfigError("expected ternary rows of -1, 0 and 1, got another value; use precision='float32'")
        if out is None:
            out = self.empty(len(t), num_outputs, torch.int16 if raw else torch.float32)
        worth_N = np.ones(len(t), dtype=np.float32) if scale_N is None else scale_N.float().numpy()
        unit_N = np.zeros(len(t), dtype=np.float32)
        # Rows with few non-zeros get a larger margin against overflow, at the price of some precision: two groups, so
        # that a single one among many does not cost all of them.
        for sparse in (True, False):
            rows = np.flatnonzero((lit_N <= FEW) == sparse)
            if not len(rows):
                continue
            shifts = plan(self.keyed.log_points, sparse=sparse)
            factor_n = np.array([shifts.factor(int(lit)) for lit in lit_N[rows]], dtype=np.int64)
            # undoes what the kernels do to the scale: codes times factor, right shifts, and H twice without its 1 / N
            unit_N[rows] = worth_N[rows] * 2.0**shifts.total / (factor_n * self.keyed.points)
            whole = len(rows) == len(t)
            mine, to = (t, out.numpy()) if whole else (t[rows], np.empty((len(rows), num_outputs), out.numpy().dtype))
            self._run(mine, to, np.int16(0), factor_n, unit_N[rows].copy(), shifts=shifts)
            if not whole:
                out.numpy()[rows] = to
        return out, torch.from_numpy(unit_N)

    def _accelerated(self, x_ND: Tensor, num_outputs: int, first_block: int, out: Tensor | None) -> Tensor:
        blocks, known = self.blocks(num_outputs) + first_block, self._on_devices.get(x_ND.device)
        if known is None or known.num_blocks < blocks:
            known = self._on_devices[x_ND.device] = Tables.of(self.keyed, blocks, x_ND.device)
        dtype = x_ND.dtype if x_ND.dtype.is_floating_point else torch.float32
        p_NM = x_ND.new_empty((len(x_ND), num_outputs), dtype=dtype) if out is None else out
        transform_rows(x_ND, p_NM, known, first_block=first_block)
        return p_NM

    def portable(self, x_ND: Tensor, num_outputs: int, *, first_block: int = 0) -> Tensor:
        """The same by plain torch, in the dtype and on the device of x_ND."""
        start = first_block * self.keyed.points
        return forward(x_ND, self._natural(start + num_outputs, x_ND), num_outputs, first_block)

    @staticmethod
    def empty(num_rows: int, num_outputs: int, dtype: torch.dtype) -> Tensor:
        """Room for results, float32 or int16: at a cache line, in huge pages where large.

        A fresh result of 1 GB otherwise costs 250,000 page faults.
        """
        kind = {torch.float32: np.float32, torch.int16: np.int16}[dtype]
        return torch.from_numpy(aligned((num_rows, num_outputs), kind))

    def adjoint(self, p_NM: Tensor) -> Tensor:
        """x_ND = p B^T, by plain torch."""
        return adjoint(p_NM, self._natural(p_NM.shape[1], p_NM), self.keyed.num_inputs)

    def _natural(self, num_outputs: int, like: Tensor) -> Diagonals:
        known, blocks = self._diagonals.get((like.dtype, like.device)), self.blocks(num_outputs)
        if known is None or len(known.second_BJ) < blocks:
            known = self._diagonals[like.dtype, like.device] = Diagonals.of(self.keyed, blocks, like)
        return known

    def _table(self, shift: int | None) -> np.ndarray:
        """Singular values as the kernels multiply by them: S / N in float32, S 2^(16 - shift) in int16."""
        if shift not in self._tables:
            values = self.keyed.values
            if shift is None:
                made = (values / self.keyed.points).astype(np.float32)
            else:
                made = np.minimum(np.rint(values * 2.0 ** (16 - shift)), 32767).astype(np.int16)
            table = aligned(made.shape, made.dtype)
            table[:] = made
            self._tables[shift] = table
        return self._tables[shift]

    def _run(
        self,
        x: np.ndarray,
        out: np.ndarray,
        like: np.float32 | np.int16,
        factor_N: np.ndarray,
        scale_N: np.ndarray,
        *,
        shifts: Shifts | None = None,
        first_block: int = 0,
    ) -> None:
        from odfa.structured.kernels import project_rows

        keyed, size = self.keyed, like.itemsize
        signs2, signs3 = keyed.signs(first_block + self.blocks(out.shape[1]))
        table = self._table(None if shifts is None else shifts.values)
        shape = (keyed.width.bit_length() - 10, keyed.width, size, keyed.points)
        logs = np.array(groups(keyed.log_points), dtype=np.int64)
        slots = np.zeros(SLOTS, dtype=np.int64) if shifts is None else shifts.slots
        kind = f"{like.dtype}{out.dtype}"
        pool = self._scratch.setdefault(kind, queue.SimpleQueue())
        streaming, as_float = out.nbytes > _STREAM_BYTES, size == 2 and out.dtype == np.float32

        # The threads' parts of `out` do not overlap, and each part is computed as it would be alone: the number of
        # threads changes no result. Working memory is taken from a queue, as two calls may run at the same time.
        def work(rows: slice, blocks: slice) -> None:
            try:
                scratch = pool.get_nowait()
            except queue.Empty:
                scratch = self._new_scratch(like.dtype, out.dtype)
            part = out[rows, blocks.start * keyed.points : blocks.stop * keyed.points]
            project_rows(
                like, x[rows], part, first_block + blocks.start, factor_N[rows], scale_N[rows], shape, logs, slots,
                scratch.panel, scratch.z_RW, scratch.buf_RW, scratch.spill_J, keyed.signs1, signs2, signs3,
                keyed.signs4, keyed.rows, table, keyed.order, as_float, streaming,
            )  # fmt: skip
            pool.put(scratch)

        # the calling thread works too: a call that needs one thread never makes a pool
        mine, *others = self._split(len(x), self.blocks(out.shape[1]))
        if others and self._threads is None:
            self._threads = ThreadPoolExecutor(os.cpu_count(), "odfa-structured")
        waiting = [self._threads.submit(work, *task) for task in others if self._threads is not None]
        work(*mine)
        for done in waiting:
            done.result()

    def _split(self, num_rows: int, num_blocks: int) -> list[tuple[slice, slice]]:
        """(rows, blocks) of each thread: rows if there are enough, else blocks, each thread with its own first H."""
        worth = num_rows * num_blocks * self.keyed.points // _WORTH_A_THREAD
        threads = max(1, min(torch.get_num_threads(), worth))
        if num_rows >= threads:
            cuts = [num_rows * i // threads for i in range(threads + 1)]
            return [(slice(a, b), slice(0, num_blocks)) for a, b in pairwise(cuts)]
        threads = min(threads, num_blocks)
        cuts = [num_blocks * i // threads for i in range(threads + 1)]
        return [(slice(0, num_rows), slice(a, b)) for a, b in pairwise(cuts)]

    def _new_scratch(self, dtype: np.dtype, out_dtype: np.dtype) -> Scratch:
        keyed = self.keyed
        rows = keyed.points // keyed.width
        # one cache line more than a power of two: otherwise equal columns of all rows would share the same cache sets
        stride = keyed.width + (_LINE // dtype.itemsize if rows > 1 else 0)
        panel_rows = 1 << sum(groups(keyed.log_points))
        return Scratch(
            z_RW=aligned((rows, stride), dtype),
            buf_RW=aligned((rows, stride), dtype),
            panel=aligned((panel_rows, _LINE), np.dtype(np.uint8)),
            spill_J=aligned((keyed.points,), out_dtype),
        )


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array that starts at a cache line; a large one at a huge page, which NumPy then asks the system for."""
    # NumPy aligns to 16 or 64 bytes only: more bytes than needed are reserved, and the array begins within them
    count = math.prod(shape) * np.dtype(dtype).itemsize
    step = _HUGE if count >= _HUGE else _LINE
    raw = np.empty(count + step + (2 * _HUGE if count >= _HUGE else 0), dtype=np.uint8)
    start = -raw.ctypes.data % step
    return np.asarray(raw[start : start + count].view(dtype).reshape(shape))


def kernels_available() -> bool:
    """Whether numba, which compiles the processor's kernels, is installed."""
    return find_spec("numba") is not None


def compiler_on(device: torch.device) -> str:
    """What computes structured projections and signs on this device: "numba", "triton", or "torch" without kernels."""
    if device.type == "cpu" and kernels_available():
        return "numba"
    return "triton" if triton_runs_on(device) else "torch"
