"""Structured projections and signs on accelerators by Triton's kernels: which devices, their tables, their launches.

Shape letters: `N` rows · `D` inputs · `M` outputs · `U` = J / 32 units of 32 entries · `B` blocks · `V` rows of the
table of singular values.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from odfa.errors import ConfigError
from odfa.structured.keyed import UNIT, KeyedNumbers, exchanged, plus_minus

_LEAST_CAPABILITY = (8, 0)
"""NVIDIA GPUs before this one have no tf32 and no bfloat16; torch computes there."""
_ONE_PROGRAM_LOG, _ONE_PROGRAM_BYTES = 14, 4.5
"""log2 of the most entries that one program holds, and bytes of shared memory that each of them takes, compiled for
NVIDIA GPUs: registers end here (docs/projections.md). Not measured yet (benchmarks/accelerator.py)."""
_ROW_LOG = 12
"""log2 of the entries that a program of a pass along rows holds."""
_TILE_LOG, _TILE_BYTES, _TILE_COLUMNS = 13, 4.25, (8, 128)
"""log2 of the entries that a program of a pass down columns should hold (twice as many fit into registers), bytes of
shared memory of each; the columns below which memory is read in pieces, and above which nothing is gained."""
_LEAST_SHARED_BYTES = 2**16
"""Shared memory of a program where torch does not tell it."""
_ENTRIES_A_WARP = 512
_ONE_STAGE = {"num_stages": 1}
"""Of transforms: what Triton would read ahead for the next block takes twice the shared memory of a vector."""
_SIGN_ROWS, _LEAST_SIGN_ROWS, _SIGN_COLUMNS = 128, 16, 128
"""Rows and columns of a program that makes signs: the more rows, the less often each sign is made."""
_GATHERED_COLUMNS = 512
"""Columns of a program that gathers signs."""
_BUFFER_BYTES = 2**28
"""Memory for intermediate results of longer vectors; rows are taken in parts that fit. Not measured yet."""
_PROGRAMS = 1024
"""Programs that fill an accelerator; few rows of many blocks are cut into so many."""


@cache
def triton_runs_on(device: torch.device) -> bool:
    """Whether this device's structured projections and signs are computed by Triton's kernels, not by torch."""
    if device.type not in ("cuda", "xpu") or find_spec("triton") is None:
        return False
    nvidia = device.type == "cuda" and torch.version.hip is None
    return not nvidia or torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def precision_on(device: torch.device) -> str:
    """How the kernels multiply float32 with signs: tf32 in two parts on NVIDIA GPUs, float32 elsewhere."""
    return "tf32" if device.type == "cuda" and torch.version.hip is None else "ieee"


@cache
def shared_bytes(device: torch.device) -> int:
    """Shared memory of a program on this device."""
    if device.type == "cpu":  # Triton's interpreter: as on a large GPU
        return 227 * 1024
    found = torch.get_device_module(device).get_device_properties(device)
    return int(getattr(found, "shared_memory_per_block_optin", _LEAST_SHARED_BYTES))


def at(device: torch.device) -> AbstractContextManager[object]:
    """Inside, kernels are launched on this device, not on the current one of its kind."""
    if device.type == "cpu":  # Triton's interpreter
        return nullcontext()
    found: AbstractContextManager[object] = torch.get_device_module(device).device(device)
    return found


@dataclass(frozen=True)
class Tables:
    """Keyed numbers of the first blocks in the order in which the kernels read them, on their device."""

    signs1_U: Tensor
    signs2_BU: Tensor
    signs3_BU: Tensor
    """Bits of natural entries, 32 to a word (int32)."""
    signs4_U: Tensor
    """In the order of exchanged tiles."""
    order_U: Tensor
    """Output unit of each unit of exchanged tiles, int32."""
    rows_U: Tensor
    """Row of the table for each natural unit, int32: Triton lays out products otherwise after reading bytes."""
    table_V32: Tensor
    """S / N, float32."""

    @property
    def num_blocks(self) -> int:
        """B, blocks that these are of."""
        return len(self.signs2_BU)

    @classmethod
    def of(cls, keyed: KeyedNumbers, num_blocks: int, device: torch.device) -> "Tables":
        """Of the first blocks."""
        # D3 and the rows of the table are drawn by unit of a row, row; D2 in the order of exchanged tiles
        places, per_row = exchanged(keyed.points), keyed.width // UNIT
        second_BU, third_BU = (signs[:num_blocks] for signs in keyed.signs(num_blocks))
        natural_BU = np.stack([np.packbits(plus_minus(words)[places] < 0, bitorder="little") for words in second_BU])

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return cls(
            tensor(keyed.signs1.view(np.int32)),
            tensor(natural_BU.view("<u4").astype(np.uint32).view(np.int32)),
            tensor(third_BU.reshape(len(third_BU), per_row, -1).swapaxes(1, 2).reshape(third_BU.shape).view(np.int32)),
            tensor(keyed.signs4.view(np.int32)),
            tensor(keyed.order),
            tensor(keyed.rows.reshape(per_row, -1).T.reshape(-1).astype(np.int32)),
            tensor((keyed.values / keyed.points).astype(np.float32)),
        )


def transform_rows(
    x_ND: Tensor, out_NM: Tensor, tables: Tables, *, first_block: int = 0, precision: str | None = None
) -> None:
    """out = x B, outputs counted from those of block `first_block`; any strides, sums in float32.

    Args:
        x_ND: float32, float16, bfloat16, int8 or bool.
        out_NM: float32, float16 or bfloat16, on the same device, written.
        tables: of the blocks that are needed, on the same device.
        first_block: block whose outputs `out_NM` begins with.
        precision: how products are computed; none: as `precision_on` says.

    Raises:
        ConfigError: columns of `out_NM` lie too far apart.
    """
    x_ND = x_ND.detach().view(torch.int8) if x_ND.dtype == torch.bool else x_ND.detach()
    if not out_NM.numel():
        return
    if _is_far(out_NM):
        raise ConfigError(
            f"expected columns within 2^31 entries, got strides {out_NM.stride()}; give a contiguous result"
        )
    x_ND = x_ND.contiguous() if _is_far(x_ND) else x_ND
    with at(x_ND.device):
        log_points = (tables.signs1_U.numel() * UNIT).bit_length() - 1
        most = min(_ONE_PROGRAM_LOG, int(math.log2(shared_bytes(x_ND.device) / _ONE_PROGRAM_BYTES)))
        launch = _in_one if log_points <= most else _in_four
        launch(x_ND, out_NM, tables, first_block, log_points, precision or precision_on(x_ND.device))


def _is_far(x_ND: Tensor) -> bool:
    # within a row the kernels count in int32
    return x_ND.stride(1) * x_ND.shape[1] >= 2**31


def _in_one(x_ND: Tensor, out_NM: Tensor, tables: Tables, first_block: int, log_points: int, precision: str) -> None:
    """A program for each row, more where there are few rows of many blocks."""
    from odfa.structured.triton_transform import whole

    num_rows, num_blocks = len(x_ND), -(-out_NM.shape[1] >> log_points)
    per_program = max(1, num_blocks * num_rows // _PROGRAMS)
    options = _options(log_points, most_warps=16) | _ONE_STAGE
    whole[num_rows, -(-num_blocks // per_program)](
        x_ND, *x_ND.stride(), x_ND.shape[1], out_NM, *out_NM.stride(), out_NM.shape[1], first_block, per_program,
        tables.signs1_U, tables.signs2_BU, tables.signs3_BU, tables.signs4_U, tables.order_U, tables.rows_U,
        tables.table_V32, LOG=log_points, LOG_WARPS=options["num_warps"].bit_length() - 1, PRECISION=precision,
        **options,
    )  # fmt: skip


def _in_four(x_ND: Tensor, out_NM: Tensor, tables: Tables, first_block: int, log_points: int, precision: str) -> None:
    """Four passes over parts of the rows."""
    from odfa.structured.triton_transform import cross, enter, leave, middle

    points, num_blocks = 1 << log_points, -(-out_NM.shape[1] >> log_points)
    log_rows, log_columns = split(log_points)
    width = tile_columns(log_rows, shared_bytes(x_ND.device))
    tile = {"LOG_ROWS": log_rows, "STEP": 1 << log_columns, "W": width, "PRECISION": precision}
    tile |= _options(log_rows + width.bit_length() - 1) | _ONE_STAGE
    line = {"J": points, "LOG_COLUMNS": log_columns, "PRECISION": precision, **_options(log_columns), **_ONE_STAGE}
    part = max(1, _BUFFER_BYTES // (4 * points * (num_blocks + 1)))
    z_nJ = torch.empty((min(part, len(x_ND)), points), device=x_ND.device)
    y_nBJ = torch.empty((len(z_nJ), num_blocks, points), device=x_ND.device)
    for start in range(0, len(x_ND), part):
        x_nD, out_nM = x_ND[start : start + part], out_NM[start : start + part]
        rows, stripes, lines = len(x_nD), (1 << log_columns) // width, 1 << log_rows
        enter[rows, stripes](x_nD, *x_nD.stride(), x_nD.shape[1], z_nJ, tables.signs1_U, **tile)
        cross[rows, lines](z_nJ, y_nBJ, first_block, num_blocks, tables.signs2_BU, **line)
        middle[rows * num_blocks, stripes](
            y_nBJ, first_block, num_blocks, tables.signs3_BU, tables.rows_U, tables.table_V32, **tile
        )
        leave[rows * num_blocks, lines](
            y_nBJ, out_nM, *out_nM.stride(), out_nM.shape[1], num_blocks, tables.signs4_U, tables.order_U, **line
        )


def split(log_points: int) -> tuple[int, int]:
    """log2 of rows and columns of a vector in four passes."""
    # 2^7 points are one factor of 128, which costs twice as much as two factors of 2^4: 2^19 has 2^8 rows instead
    log_columns = min(_ROW_LOG, log_points - 4)
    log_columns -= log_points - log_columns == 7
    return log_points - log_columns, log_columns


def tile_columns(log_rows: int, shared: int) -> int:
    """Columns of a program of a pass down columns of 2^log_rows entries, a power of two, at most 128."""
    least, most = _TILE_COLUMNS
    fits = 1 << min(_TILE_LOG + 1, int(math.log2(shared / _TILE_BYTES))) >> log_rows
    wanted = min(most, max(least, 1 << _TILE_LOG >> log_rows))
    return max(1, min(fits, wanted))


def _options(log_entries: int, *, most_warps: int = 8) -> dict[str, int]:
    warps = 16 if log_entries > _TILE_LOG else max(4, min(most_warps, (1 << log_entries) // _ENTRIES_A_WARP))
    # fusing is named because Triton's default changes with its version
    return {"num_warps": warps, "enable_fp_fusion": True}


def sign_rows(x_ND: Tensor, out_NM: Tensor, key: int, *, precision: str | None = None) -> None:
    """out = x B, B = ±1 as `counter` has it for this key; any strides, sums in float32 (of int8 and bool in int32).

    Args:
        x_ND: float32, float16, bfloat16, int8 or bool.
        out_NM: float32, float16 or bfloat16, on the same device, written.
        key: key of the matrix.
        precision: how products of float32 are computed; none: as `precision_on` says.
    """
    from odfa.structured.triton_signs import multiply

    x_ND = x_ND.detach().view(torch.int8) if x_ND.dtype == torch.bool else x_ND.detach()
    num_rows, num_outputs = out_NM.shape
    if not out_NM.numel():
        return
    rows = max(_LEAST_SIGN_ROWS, min(_SIGN_ROWS, 1 << (num_rows - 1).bit_length()))
    # Triton's interpreter multiplies no bfloat16
    wide = x_ND.device.type == "cpu" and x_ND.dtype == torch.bfloat16
    with at(x_ND.device):
        multiply[-(-num_outputs // _SIGN_COLUMNS), -(-num_rows // rows)](
            x_ND, *x_ND.stride(), *x_ND.shape, out_NM, *out_NM.stride(), num_outputs, key,
            ROWS=rows, COLUMNS=_SIGN_COLUMNS, PRECISION=precision or precision_on(x_ND.device), WIDE=wide,
            **_options(_TILE_LOG),
        )  # fmt: skip


def gather_signs(index_NF: Tensor, gain_NF: Tensor, out_NM: Tensor, key: int) -> None:
    """out_nm = sum_F gain B_dm, d the index of each entry (int64) and B as in `sign_rows`; gains and out float32."""
    from odfa.structured.triton_signs import gather

    (num_rows, num_outputs), blocks = out_NM.shape, -(-out_NM.shape[1] // _GATHERED_COLUMNS)
    if not num_rows:
        return
    with at(out_NM.device):
        gather[(num_rows * blocks,)](
            index_NF.contiguous(), gain_NF.contiguous(), index_NF.shape[1], out_NM, num_outputs, key, blocks,
            COLUMNS=_GATHERED_COLUMNS, **_options(_ROW_LOG),
        )  # fmt: skip
