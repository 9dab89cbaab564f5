"""The passes of a structured projection over memory, compiled by numba: rows in L1, columns through a small panel.

A vector of J = 2^k entries is kept as rows of up to 4096 entries (`stride` bytes apart, padded by one cache line: rows
a power of two apart would all fall into the same few cache sets). Index bits 0-8 belong to a tile, 9-11 to a row, the
others to the columns. Addresses and strides are int64, in bytes, and point to rows as described beside each argument;
`like` is a float32 or an int16 whose type is that of the entries, `size` its bytes.

Shape letters: `N` vectors to project · `D` inputs · `M` outputs · `B` blocks · `J` entries of a block ·
`U` = J / 32 units of 32 entries · `R W` rows of a vector in memory, entries of a row with its padding ·
`V` rows of the table of singular values.
"""

import numpy as np

from odfa.structured.compiled import kernel
from odfa.structured.lanes import butterfly, last_tile, lit_of_64, load_unit, middle, tile

TILE, ROW = 512, 4096


@kernel
def _mix(
    like,  # (), float32 or int16
    log_r,  # (), int64, 0 to 4
    src,  # address of 2^log_r vectors of 64 bytes
    src_step,  # (), int64, bytes from vector to vector
    dst,  # address of as many vectors, may be `src`
    dst_step,  # (), int64, bytes
    shift,  # (), int64, right shift of int16 results; 0 for float32
):
    """H over 2^log_r vectors a step apart, then a shift."""
    # the number of vectors decides which registers the code names, so it must be a literal: one branch for each
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
def _mix_row(
    like,  # (), float32 or int16
    size,  # (), int64, bytes of an entry
    row,  # address of (2^log_tiles, 512) entries, changed in place
    log_tiles,  # (), int64, 1 to 3
    shift,  # (), int64
):
    """H over the tiles of one row, and over the two halves of float32 units."""
    # unit by unit: the vectors of one unit, one of each tile, are at most 16 and stay in registers
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
def _middle_row(
    like,  # (), float32 or int16
    size,  # (), int64, bytes of an entry
    row,  # address of (2^log_tiles, 512) entries, changed in place
    log_tiles,  # (), int64, 1 to 3
    shift,  # (), int64
    signs,  # address of (U,) uint32: D3
    rows,  # address of (U,) uint8: row of the table for each unit
    table,  # address of (V, 32) like: singular values
):
    """H over the tiles of the only row of a short vector, singular values and signs, and H again."""
    # both transforms and what is between them while a unit is in registers: the row is read and written once
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
def _middle_column(
    like,  # (), float32 or int16
    log_r,  # (), int64, 1 to 4
    at,  # address of 2^log_r vectors of 64 bytes, changed in place
    step,  # (), int64, bytes from vector to vector
    shift,  # (), int64
    signs,  # address of (2^log_r,) uint32: D3 of these units
    rows,  # address of (2^log_r,) uint8: row of the table for each unit
    table,  # address of (V, 32) like: singular values
):
    """H over 2^log_r vectors of a column, singular values and signs, and H again."""
    if log_r == 4:
        middle(like, 4, 0, at, step, shift, signs, 4, rows, 1, table)
    elif log_r == 3:
        middle(like, 3, 0, at, step, shift, signs, 4, rows, 1, table)
    elif log_r == 2:
        middle(like, 2, 0, at, step, shift, signs, 4, rows, 1, table)
    else:
        middle(like, 1, 0, at, step, shift, signs, 4, rows, 1, table)


@kernel
def _tiles(
    like,  # (), float32 or int16
    size,  # (), int64, bytes of an entry
    src,  # address of (2^log_tiles, 512) entries
    dst,  # address of as many, may be `src`
    log_tiles,  # (), int64, 1 to 3
    signed,  # (), bool: apply the signs first
    signs,  # address of (2^log_tiles, 16) uint32, in memory order; unused without `signed`
    shift,  # (), int64
):
    """H over index bits 0 to 8, tile by tile of one row."""
    # a tile is 16 vectors of 64 bytes, which fill the registers; a float32 tile is twice that and goes by halves
    for t in range(1 << log_tiles):
        for half in range(size // 2):
            offset = t * TILE * size + 64 * half
            if signed:
                tile(like, 1, src + offset, dst + offset, signs + 64 * t + 2 * half, shift)
            else:
                tile(like, 0, src + offset, dst + offset, signs, shift)


@kernel
def _last_tiles(
    like,  # (), float32 or int16
    size,  # (), int64, bytes of an entry
    src,  # address of (2^log_tiles, 512) entries
    log_tiles,  # (), int64, 1 to 3
    dst,  # address of (U, 32) float32 or int16: the outputs of a block
    limit,  # (), int64: units that `dst` has room for
    spill,  # address of (U, 32) of the same type: room for the others
    signs,  # address of (2^log_tiles, 16) uint32: D4
    order,  # address of (2^log_tiles, 16) int32: output unit of each unit
    scale,  # (), float32
    as_float,  # (), bool: write int16 results as float32 times scale
    streaming,  # (), bool: write past the caches
):
    """The tiles of one row that end a projection, with signs, each unit to its place among the outputs."""
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
def _columns(
    like,  # (), float32 or int16
    size,  # (), int64, bytes of an entry
    z,  # address of (R, W) entries, changed in place
    stride,  # (), int64, bytes from row to row
    logs,  # (3,) int64: index bits of the outer, extra and inner group, together log2 R
    shifts,  # (at least 6,) int64: outer, extra, inner; with `signed` inner, extra, outer again in 3 to 5
    panel,  # address of (R, 64) bytes
    signed,  # (), bool
    signs,  # address of (units of a row, R) uint32: D3; unused without `signed`
    rows,  # address of (units of a row, R) uint8: row of the table for each unit
    table,  # address of (V, 32) like: singular values
):
    """H over the rows' index, split into an outer, an extra and an inner group of bits; with `signed` singular values
    and signs follow, and H again: inner, extra, outer."""
    # Columns of 64 bytes outermost: one column of all rows, copied into the panel by the first group, is at most
    # 256 KB and stays in L2 for the other groups, so that z is read and written once instead of once a group.
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
def _extra(
    like,  # (), float32 or int16
    work,  # address of `count` vectors of 64 bytes, changed in place
    step,  # (), int64, bytes from vector to vector
    extra,  # (), int64: bits of this group; 0: nothing to do
    inner,  # (), int64: bits below it
    count,  # (), int64: vectors
    shift,  # (), int64
):
    """H over the middle group of the rows' index bits, which only vectors of more than 2^20 entries have."""
    if extra:
        block = 1 << (extra + inner)
        for start in range(0, count, block):
            for r in range(1 << inner):
                at = work + (start + r) * step
                _mix(like, extra, at, step << inner, at, step << inner, shift)


@kernel
def first_transform(
    like,  # (), float32 or int16
    size,  # (), int64, bytes of an entry
    z,  # address of (R, W) entries, changed in place
    rows_z,  # (), int64: R
    log_tiles,  # (), int64, 1 to 3: index bits of a row's tiles
    stride,  # (), int64, bytes from row to row
    logs,  # (3,) int64: index bits of the columns' groups
    shifts,  # (17,) int64, of which 0 to 7 are used here
    panel,  # address of (R, 64) bytes
):
    """z = H z in place, tiles left in exchanged order."""
    # putting the tiles back in order would cost 64 shuffles each; D2 is drawn for the exchanged order instead
    if logs[2]:
        _columns(like, size, z, stride, logs, shifts, panel, False, 0, 0, 0)
    for r in range(rows_z):  # both steps on one row while it is in L1
        _mix_row(like, size, z + r * stride, log_tiles, shifts[6])
        _tiles(like, size, z + r * stride, z + r * stride, log_tiles, False, 0, shifts[7])


@kernel
def one_block(
    like,  # (), float32 or int16
    size,  # (), int64, bytes of an entry
    z,  # address of (R, W) entries: H D1 x, kept for the next block
    buf,  # address of (R, W) entries: working memory
    rows_z,  # (), int64: R
    log_tiles,  # (), int64, 1 to 3
    stride,  # (), int64, bytes from row to row, of z and of buf
    logs,  # (3,) int64: index bits of the columns' groups
    shifts,  # (17,) int64, of which 8 to 16 are used here
    panel,  # address of (R, 64) bytes
    signs2,  # address of (U,) uint32: D2 of this block, in the order of exchanged tiles
    signs3,  # address of (U,) uint32: D3 of this block, unit of a row first, then row
    rows,  # address of (U,) uint8: row of the table, in the order of D3
    table,  # address of (V, 32) like: singular values
    dst,  # address of (J,) float32 or int16: outputs of this block
    limit,  # (), int64: units that dst has room for
    spill,  # address of (J,) of the same type: room for the other units
    signs4,  # address of (U,) uint32: D4, in the order of exchanged tiles
    order,  # address of (U,) int32: output unit of each unit
    scale,  # (), float32
    as_float,  # (), bool: write int16 results as float32 times scale
    streaming,  # (), bool: write past the caches
):
    """dst = D4 H S D3 H D2 z, units in keyed order; those from number `limit` on go to `spill`."""
    # Row by row, then all columns, then row by row: each row is taken through all of its steps while it is in L1.
    # The columns lie in the middle of both transforms, so that the second starts where the first ends.
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
def _load(
    like,  # (), float32 or int16
    x_D,  # (D,) float32, or int8 where like is int16
    signs_U,  # (U,) uint32: D1
    width,  # (), int64: entries of a row without its padding
    factor,  # (), int64: 1 for float32
    z_RW,  # (R, W) like, written
):
    """z[r, :width] = D1 x in float32, or factor * D1 x in int16 for x in int8; zeros beyond the inputs."""
    size, whole, units = z_RW.itemsize, len(x_D) // 32, width // 32
    at_x, at_signs, at_z = x_D.ctypes.data, signs_U.ctypes.data, z_RW.ctypes.data
    for unit in range(z_RW.shape[0] * units):
        row, first = unit // units, unit % units * 32
        if unit < whole:
            to = at_z + row * z_RW.strides[0] + first * size
            load_unit(like, at_x + unit * 32 * x_D.itemsize, at_signs + 4 * unit, factor, to)
            continue
        z_RW[row, first : first + 32] = 0
        for lane in range(len(x_D) - unit * 32):
            if lane < 32:
                bit = np.int32((signs_U[unit] >> np.uint32(lane)) & np.uint32(1))
                z_RW[row, first + lane] = x_D[unit * 32 + lane] * factor * (1 - 2 * bit)


@kernel
def project_rows(
    like,  # (), float32 or int16
    x_ND,  # (N, D) float32, or int8 where like is int16
    out_NM,  # (N, M) float32 or int16, written; rows contiguous
    first_block,  # (), int64
    factor_N,  # (N,) int64: what int8 rows are multiplied by
    scale_N,  # (N,) float32: what int16 results are multiplied by where they are written as float32
    shape,  # 4 int64: index bits of a row's tiles, width of a row, bytes of an entry, entries of a block
    logs,  # (3,) int64: index bits of the columns' groups
    shifts,  # (17,) int64: right shifts by slot, all 0 for float32
    panel,  # (R, 64) uint8: working memory
    z_RW,  # (R, W) like: working memory
    buf_RW,  # (R, W) like: working memory
    spill_J,  # (J,) like out_NM: working memory
    signs1,  # (U,) uint32
    signs2,  # (B, U) uint32
    signs3,  # (B, U) uint32
    signs4,  # (U,) uint32
    rows,  # (U,) uint8
    table,  # (V, 32) like
    order,  # (U,) int32
    as_float,  # (), bool: write int16 results as float32
    streaming,  # (), bool: write past the caches
):
    """Rows of x through the blocks first_block, … that `out_NM` has room for."""
    # Vectors outermost, blocks within: the first transform, H D1 x, is done once a vector and serves all its blocks.
    log_tiles, width, size, points = shape
    at_z, at_buf, stride, rows_z = z_RW.ctypes.data, buf_RW.ctypes.data, z_RW.strides[0], z_RW.shape[0]
    at_panel, at_rows, at_table, at_order = panel.ctypes.data, rows.ctypes.data, table.ctypes.data, order.ctypes.data
    words = points // 32
    for i in range(len(x_ND)):
        _load(like, x_ND[i], signs1, width, factor_N[i], z_RW)
        first_transform(like, size, at_z, rows_z, log_tiles, stride, logs, shifts, at_panel)
        for b in range((out_NM.shape[1] + points - 1) // points):
            start = b * points
            limit = min(words, (out_NM.shape[1] - start) // 32)
            at = out_NM.ctypes.data + i * out_NM.strides[0] + start * out_NM.itemsize
            key = 4 * words * (first_block + b)
            one_block(
                like, size, at_z, at_buf, rows_z, log_tiles, stride, logs, shifts, at_panel,
                signs2.ctypes.data + key, signs3.ctypes.data + key, at_rows, at_table,
                at, limit, spill_J.ctypes.data, signs4.ctypes.data, at_order, scale_N[i], as_float,
                streaming and at % 64 == 0,
            )  # fmt: skip
            # the last unit of the outputs may be wanted in part: its first entries are copied from the spill
            for j in range(start + 32 * limit, min(start + points, out_NM.shape[1])):
                out_NM[i, j] = spill_J[j - start]


@kernel
def count_lit(
    x_ND,  # (N, D) int8, rows contiguous
    lit_N,  # (N,) int64, written
):
    """Number of non-zeros of each int8 row; returns False if there is anything but -1, 0 and 1."""
    good = True
    for i in range(len(x_ND)):
        at, whole, total = x_ND.ctypes.data + i * x_ND.strides[0], x_ND.shape[1] // 64, 0
        for k in range(whole):
            count = lit_of_64(at + 64 * k)
            good &= count >= 0
            total += count
        for j in range(64 * whole, x_ND.shape[1]):
            good &= -1 <= x_ND[i, j] <= 1
            total += x_ND[i, j] != 0
        lit_N[i] = total
    return good
