"""The source of random numbers, on whatever device they are wanted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy

import torch
from torch import Tensor

from odfa.draws import arithmetic
from odfa.errors import ConfigError
from odfa.keys import mix
from odfa.structured import compiler_on

_NUMBERS_A_CALL, _NUMBERS_ON_DEVICE = 2**14, 2**24
"""Numbers that torch's operations make at a time, temporaries of 8 bytes each: in cache on a processor, and many on a
device that is busy only with much."""
_WORTH_A_THREAD = 2**18
"""Numbers below which a second thread costs more than it brings."""


class Draws:
    """Random numbers of which each depends on the key, its row and its column alone, wherever and whenever it is drawn.

    Devices draw the same numbers bit for bit: Philox4x32-10 by (column // 4, row), see `odfa.draws.arithmetic`.

    >>> bool((Draws(7).normal(5, 3)[2:] == Draws(7).normal(3, 3, first_row=2)).all())
    True
    """

    def __init__(self, *parts: int) -> None:
        """Name the numbers by integers, such as (stream, seed, call)."""
        self.key, self._first_row = mix(*parts), 0

    def behind(self, rows: int) -> "Draws":
        """The same numbers without their first `rows` rows."""
        draws = copy(self)
        draws._first_row += rows
        return draws

    def uniform(
        self,
        rows: int,
        columns: int,
        *,
        first_row: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Evenly spread from 0 to below 1, (rows, columns): multiples of 2^-24, in float64 of 2^-53."""
        device, first_row = torch.device(device), first_row + self._first_row
        if dtype != torch.float64:
            return self._filled("uniform", rows, columns, first_row, device).to(dtype)
        out_RC = torch.empty((rows, columns), dtype=dtype, device=device)
        for part in _parts(first_row, rows, columns, device):
            words_4RQ = arithmetic.words(self.key, part, 2 * columns, device)
            out_RC[part.start - first_row : part.stop - first_row] = arithmetic.uniforms(words_4RQ, dtype)[:, :columns]
        return out_RC

    def normal(
        self,
        rows: int,
        columns: int,
        *,
        first_row: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Independent N(0, 1), (rows, columns): float32 numbers in any `dtype`, none beyond 6.8."""
        return self._filled("normal", rows, columns, first_row + self._first_row, torch.device(device)).to(dtype)

    def normal_at(self, row_L: Tensor, columns: int, *, first_column: int = 0) -> Tensor:
        """What `normal` has in these rows (int64), in the columns from `first_column`: (L, columns) on their device.

        Raises:
            ConfigError: `first_column` is no multiple of four.
        """
        if first_column % 4:
            raise ConfigError(f"expected a first column that is a multiple of 4, got {first_column}")
        device, key, row_L = row_L.device, self.key, row_L + self._first_row
        out_LC = torch.empty((len(row_L), columns), device=device)
        if not out_LC.numel():
            return out_LC
        if compiler_on(device) == "numba":
            from odfa.draws.kernels import fill_normal_at

            out, row, quad = out_LC.numpy(), row_L.numpy(), first_column // 4
            in_threads(lambda part: fill_normal_at(out[part], key, row[part], quad), len(row), columns)
            return out_LC
        for part in _parts(0, len(row_L), columns, device):
            rows = slice(part.start, part.stop)
            words_4LQ = arithmetic.words(key, row_L[rows], columns, device, first_column=first_column)
            out_LC[rows] = arithmetic.normals(words_4LQ)[:, :columns]
        return out_LC

    def _filled(self, law: str, rows: int, columns: int, first_row: int, device: torch.device) -> Tensor:
        out_RC = torch.empty((rows, columns), device=device)
        if not out_RC.numel():
            return out_RC
        by = compiler_on(device)
        if by == "numba":
            from odfa.draws import kernels

            fill = {"uniform": kernels.fill_uniform, "normal": kernels.fill_normal}[law]
            in_threads(lambda part: fill(out_RC.numpy()[part], self.key, first_row + part.start), rows, columns)
        elif by == "triton":
            from odfa.draws.accelerated import fill_on_accelerator

            fill_on_accelerator(law, out_RC, self.key, first_row)
        else:
            for part in _parts(first_row, rows, columns, device):
                words_4RQ = arithmetic.words(self.key, part, columns, device)
                made = (
                    arithmetic.normals(words_4RQ) if law == "normal" else arithmetic.uniforms(words_4RQ, out_RC.dtype)
                )
                out_RC[part.start - first_row : part.stop - first_row] = made[:, :columns]
        return out_RC


def in_threads(work: Callable[[slice], object], rows: int, columns: int) -> None:
    """Call `work` with all rows, or with as many parts of them as torch has threads where they are worth it."""
    parts = min(torch.get_num_threads(), rows, max(1, rows * columns // _WORTH_A_THREAD))
    if parts == 1:
        work(slice(0, rows))
        return
    step = -(-rows // parts)
    with ThreadPoolExecutor(parts) as threads:
        list(threads.map(work, [slice(start, min(rows, start + step)) for start in range(0, rows, step)]))


def _parts(first_row: int, rows: int, columns: int, device: torch.device) -> list[range]:
    numbers = _NUMBERS_A_CALL if device.type == "cpu" else _NUMBERS_ON_DEVICE
    step = max(1, numbers // max(1, columns))
    stop = first_row + rows
    return [range(start, min(stop, start + step)) for start in range(first_row, stop, step)]
