"""The passes of a structured projection over memory, compiled by numba: rows in L1, columns through a small panel.

A vector of N = 2^k entries is kept as rows of up to 4096 entries (`stride` bytes apart, padded by one cache line: rows
a power of two apart would all fall into the same few cache sets). Index bits 0-8 belong to a tile, 9-11 to a row, the
others to the columns. Addresses are integers; `like` names the element type, float32 or int16, `size` its bytes.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np

from odfa.structured.lanes import butterfly, last_tile, lit_of_64, load_unit, middle, tile

TILE, ROW = 512, 4096
_SOURCE = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))) + llvmlite.__version__.encode()
).hexdigest()[:12]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile without the GIL, cached on disk under a name that changes with the code generator."""
    function.__qualname__ += f"_{_SOURCE}"
    try:
        return numba.njit(nogil=True, cache=True, boundscheck=False)(function)
    except RuntimeError:  # no place to cache is writable: compile in every process
        return numba.njit(nogil=True, boundscheck=False)(function)


@kernel
def _mix(like, log_r, src, src_step, dst, dst_step, shift):
    if log_r == 4:
        butterfly(like, 4, 0, src, src_step, dst, dst_step, shift)
    elif log_r == 3:
        butterfly(like, 3, 0, src, src_step, dst, dst_step, shift)
    elif log_r == 2:
        butterfly(like, 2, 0, src, src_step, dst, dst_step, shift)
    elif log_r == 1:
        butterfly(like, 1, 0, src, src_step, dst, dst_step, shift)
    else:
        butterfly(like, 0, 0, src, src_step, dst, dst_step, shift)


@kernel
def _mix_row(like, size, row, log_tiles, shift):
    """H over the tiles of one row, and over the two halves of float32 units."""
    step = TILE * size
    for unit in range(16):
        at = row + unit * 32 * size
        if log_tiles == 3:
            butterfly(like, 3, 1, at, step, at, step, shift)
        elif log_tiles == 2:
            butterfly(like, 2, 1, at, step, at, step, shift)
        else:
            butterfly(like, 1, 1, at, step, at, step, shift)


@kernel
def _middle_row(like, size, row, log_tiles, shift, signs, rows, table):
    """The same with singular values and signs in between, for vectors of a single row."""
    step = TILE * size
    for unit in range(16):
        at = row + unit * 32 * size
        if log_tiles == 3:
            middle(like, 3, 1, at, step, shift, signs + 4 * unit, 64, rows + unit, 16, table)
        elif log_tiles == 2:
            middle(like, 2, 1, at, step, shift, signs + 4 * unit, 64, rows + unit, 16, table)
        else:
            middle(like, 1, 1, at, step, shift, signs + 4 * unit, 64, rows + unit, 16, table)


@kernel
def _middle_column(like, log_r, at, step, shift, signs, rows, table):
    if log_r == 4:
        middle(like, 4, 0, at, step, shift, signs, 4, rows, 1, table)
    elif log_r == 3:
        middle(like, 3, 0, at, step, shift, signs, 4, rows, 1, table)
    elif log_r == 2:
        middle(like, 2, 0, at, step, shift, signs, 4, rows, 1, table)
    else:
        middle(like, 1, 0, at, step, shift, signs, 4, rows, 1, table)


@kernel
def _tiles(like, size, src, dst, log_tiles, signed, signs, shift):
    """Tiles of one row; the signs are in memory order."""
    for t in range(1 << log_tiles):
        for half in range(size // 2):
            offset = t * TILE * size + 64 * half
            if signed:
                tile(like, 1, src + offset, dst + offset, signs + 64 * t + 2 * half, shift)
            else:
                tile(like, 0, src + offset, dst + offset, signs, shift)


@kernel
def _last_tiles(like, size, src, log_tiles, dst, limit, spill, signs, order, scale, as_float, streaming):
    for t in range(1 << log_tiles):
        for half in range(size // 2):
            at, to, aside = src + t * TILE * size + 64 * half, dst + 64 * half, spill + 64 * half
            flips, places = signs + 64 * t + 2 * half, order + 64 * t
            if as_float and streaming:
                last_tile(like, 1, 1, at, to, limit, aside, flips, places, scale)
            elif as_float:
                last_tile(like, 1, 0, at, to, limit, aside, flips, places, scale)
            elif streaming:
                last_tile(like, 0, 1, at, to, limit, aside, flips, places, scale)
            else:
                last_tile(like, 0, 0, at, to, limit, aside, flips, places, scale)


@kernel
def _columns(like, size, z, stride, logs, shifts, panel, signed, signs, rows, table):
    """H over the rows' index, split into an outer, an extra and an inner group of bits; with `signed` singular values
    and signs follow, and H again: inner, extra, outer."""
    outer, extra, inner = logs[0], logs[1], logs[2]
    count = 1 << (outer + extra + inner)
    slow = count >> outer
    for column in range(ROW // 32 * (size // 2)):
        half, unit = column % (size // 2), column // (size // 2)
        at = z + unit * 32 * size + 64 * half
        work, step = (panel, 64) if outer else (at, stride)
        if outer:
            for r in range(slow):
                _mix(like, outer, at + r * stride, slow * stride, work + r * step, slow * step, shifts[0])
        _extra(like, work, step, extra, inner, count, shifts[1])
        for r in range(0, count, 1 << inner):
            here = work + r * step
            if signed:
                first = unit * count + r
                _middle_column(
                    like, inner, here, step, shifts[3], signs + 4 * first + 2 * half, rows + first, table + 64 * half
                )
            elif outer:
                _mix(like, inner, here, step, at + r * stride, stride, shifts[2])
            else:
                _mix(like, inner, here, step, here, step, shifts[2])
        if signed:
            _extra(like, work, step, extra, inner, count, shifts[4])
            if outer:
                for r in range(slow):
                    _mix(like, outer, work + r * step, slow * step, at + r * stride, slow * stride, shifts[5])


@kernel
def _extra(like, work, step, extra, inner, count, shift):
    if extra:
        block = 1 << (extra + inner)
        for start in range(0, count, block):
            for r in range(1 << inner):
                at = work + (start + r) * step
                _mix(like, extra, at, step << inner, at, step << inner, shift)


@kernel
def first_transform(like, size, z, rows_z, log_tiles, stride, logs, shifts, panel):
    """z = H z in place, tiles left in exchanged order."""
    if logs[2]:
        _columns(like, size, z, stride, logs, shifts, panel, False, 0, 0, 0)
    for r in range(rows_z):
        _mix_row(like, size, z + r * stride, log_tiles, shifts[6])
        _tiles(like, size, z + r * stride, z + r * stride, log_tiles, False, 0, shifts[7])


@kernel
def one_block(
    like, size, z, buf, rows_z, log_tiles, stride, logs, shifts, panel, signs2, signs3, rows, table,
    dst, limit, spill, signs4, order, scale, as_float, streaming,
):  # fmt: skip
    """dst = D4 H S D3 H D2 z, units in keyed order; those from number `limit` on go to `spill`."""
    mask_row = 64 << log_tiles
    columns = logs[2] > 0
    for r in range(rows_z):
        src, to = z + r * stride, buf + r * stride
        _tiles(like, size, src, to, log_tiles, True, signs2 + r * mask_row, shifts[8])
        if columns:
            _mix_row(like, size, to, log_tiles, shifts[9])
    if columns:
        _columns(like, size, buf, stride, logs, shifts[10:], panel, True, signs3, rows, table)
    else:
        _middle_row(like, size, buf, log_tiles, shifts[9], signs3, rows, table)
    for r in range(rows_z):
        if columns:
            _mix_row(like, size, buf + r * stride, log_tiles, shifts[16])
        key = r * mask_row
        at, flips, places = buf + r * stride, signs4 + key, order + key
        _last_tiles(like, size, at, log_tiles, dst, limit, spill, flips, places, scale, as_float, streaming)


@kernel
def _load(like, x, signs, width, factor, z):
    """z[r, :width] = D1 x in float32, or factor * D1 x in int16 for x in int8; zeros beyond the inputs."""
    size, whole, units = z.itemsize, len(x) // 32, width // 32
    at_x, at_signs, at_z = x.ctypes.data, signs.ctypes.data, z.ctypes.data
    for unit in range(z.shape[0] * units):
        row, first = unit // units, unit % units * 32
        if unit < whole:
            to = at_z + row * z.strides[0] + first * size
            load_unit(like, at_x + unit * 32 * x.itemsize, at_signs + 4 * unit, factor, to)
            continue
        z[row, first : first + 32] = 0
        for lane in range(len(x) - unit * 32):
            if lane < 32:
                bit = np.int32((signs[unit] >> np.uint32(lane)) & np.uint32(1))
                z[row, first + lane] = x[unit * 32 + lane] * factor * (1 - 2 * bit)


@kernel
def project_rows(like, x, out, first_block, factors, scales, shape, logs, shifts, panel, z, buf, spill,
                 signs1, signs2, signs3, signs4, rows, table, order, as_float, streaming):  # fmt: skip
    """Rows of x through the blocks first_block, … that `out` has room for.

    shape: (index bits of a row's tiles, width of a row, bytes of an element, entries of a block).
    """
    log_tiles, width, size, points = shape
    at_z, at_buf, stride, rows_z = z.ctypes.data, buf.ctypes.data, z.strides[0], z.shape[0]
    at_panel, at_rows, at_table, at_order = panel.ctypes.data, rows.ctypes.data, table.ctypes.data, order.ctypes.data
    words = points // 32
    for i in range(len(x)):
        _load(like, x[i], signs1, width, factors[i], z)
        first_transform(like, size, at_z, rows_z, log_tiles, stride, logs, shifts, at_panel)
        for b in range((out.shape[1] + points - 1) // points):
            start = b * points
            limit = min(words, (out.shape[1] - start) // 32)
            at = out.ctypes.data + i * out.strides[0] + start * out.itemsize
            key = 4 * words * (first_block + b)
            one_block(
                like, size, at_z, at_buf, rows_z, log_tiles, stride, logs, shifts, at_panel,
                signs2.ctypes.data + key, signs3.ctypes.data + key, at_rows, at_table,
                at, limit, spill.ctypes.data, signs4.ctypes.data, at_order, scales[i], as_float,
                streaming and at % 64 == 0,
            )  # fmt: skip
            for j in range(start + 32 * limit, min(start + points, out.shape[1])):
                out[i, j] = spill[j - start]


@kernel
def count_lit(x, lit):
    """Number of non-zeros of each int8 row; returns False if there is anything but -1, 0 and 1."""
    good = True
    for i in range(len(x)):
        at, whole, total = x.ctypes.data + i * x.strides[0], x.shape[1] // 64, 0
        for k in range(whole):
            count = lit_of_64(at + 64 * k)
            good &= count >= 0
            total += count
        for j in range(64 * whole, x.shape[1]):
            good &= -1 <= x[i, j] <= 1
            total += x[i, j] != 0
        lit[i] = total
    return good
