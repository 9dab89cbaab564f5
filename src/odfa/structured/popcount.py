"""The signs of `counter` times ternary rows, 64 entries at a time by counting bits."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from odfa.structured.compiled import kernel
from odfa.structured.counter import GOLDEN, MIX1, MIX2

_I64 = ir.IntType(64)
_LANES = 8
COLUMNS, ROWS = _LANES, 8
"""Columns and rows that the kernel takes at a time."""


@intrinsic(prefer_literal=True)
def _count(
    _typing,
    rows,  # (), int64 literal, 1 or 8: rows to count for
    key,  # (), int64: key of the matrix
    column,  # (), int64: first of 8 columns
    planes,  # address of (num_words, 8, 2) uint64: sign bits and bits of non-zero entries of each row
    num_words,  # (), int64: words of 64 inputs
    out,  # address of (8, 8) int64, written: row, column
):
    """out[row, lane] = number of minus signs among the products of row and column + lane, for 8 columns at a time."""
    # Words outermost, rows within: a random word of 8 columns is made once and serves all rows, whose counts stay in
    # registers. A product of two signs is minus where their bits differ, and only non-zero entries count.
    num_rows = int(rows.literal_value)
    signature = types.void(rows, *[types.int64] * 5)

    def codegen(context, builder, _signature, args):
        _, key, column, planes, num_words, out = args
        kind = ir.VectorType(_I64, _LANES)
        const = lambda value: ir.Constant(kind, [value] * _LANES)  # noqa: E731

        def splat(value: ir.Value) -> ir.Value:
            empty = ir.Constant(kind, ir.Undefined)
            first = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
            return builder.shuffle_vector(first, empty, zeros)

        def mixed(state: ir.Value, shift: int) -> ir.Value:
            return builder.xor(state, builder.lshr(state, const(shift)))

        name = f"llvm.ctpop.v{_LANES}i64"
        count = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(kind, [kind]), name)
        totals = [cgutils.alloca_once_value(builder, const(0)) for _ in range(num_rows)]
        lane = ir.Constant(kind, list(range(_LANES)))
        base = builder.shl(builder.add(splat(column), lane), const(32))
        with cgutils.for_range(builder, num_words, intp=_I64) as loop:
            counter = builder.add(base, splat(loop.index))
            state = builder.add(splat(key), builder.mul(counter, const(GOLDEN)))
            state = builder.mul(mixed(state, 30), const(MIX1))
            word = mixed(builder.mul(mixed(state, 27), const(MIX2)), 31)
            at = builder.add(planes, builder.mul(loop.index, ir.Constant(_I64, 16 * ROWS)))
            for row in range(num_rows):
                pair = [builder.add(at, ir.Constant(_I64, 16 * row + 8 * which)) for which in (0, 1)]
                sign, lit = (splat(builder.load(builder.inttoptr(a, _I64.as_pointer()), typ=_I64)) for a in pair)
                ones = builder.call(count, [builder.and_(builder.xor(word, sign), lit)])
                builder.store(builder.add(builder.load(totals[row], typ=kind), ones), totals[row])
        for row, total in enumerate(totals):
            to = builder.add(out, ir.Constant(_I64, 8 * _LANES * row))
            stored = builder.store(builder.load(total, typ=kind), builder.inttoptr(to, kind.as_pointer()))
            stored.align = 8
        return context.get_dummy_value()

    return signature, codegen


@kernel
def project_codes(
    key,  # (), int: key of the matrix
    planes,  # (num_words, 8, 2) uint64, as `bit_planes` makes them
    lit_n,  # (num_rows,) int64: non-zeros of each row
    scale_n,  # (num_rows,) float32
    num_rows,  # (), int, 1 to 8
    num_words,  # (), int: words of 64 inputs
    first,  # (), int: column of the matrix that out begins with
    out_nM,  # (num_rows, M) float32, written
):
    """out[row, column] = scale[row] (lit[row] - 2 minus signs), for at most 8 rows, columns counted from `first`."""
    # a sum of `lit` signs of which `minus` are negative is lit - 2 minus: exact integers until the scale
    counts = np.empty((ROWS, COLUMNS), dtype=np.int64)
    for column in range(0, out_nM.shape[1], COLUMNS):
        if num_rows == 1:
            _count(1, key, first + column, planes.ctypes.data, num_words, counts.ctypes.data)
        else:
            _count(8, key, first + column, planes.ctypes.data, num_words, counts.ctypes.data)
        for lane in range(min(COLUMNS, out_nM.shape[1] - column)):
            for row in range(num_rows):
                out_nM[row, column + lane] = scale_n[row] * np.float32(lit_n[row] - 2 * counts[row, lane])


def bit_planes(codes: np.ndarray) -> np.ndarray:
    """Bits of at most 8 rows of -1, 0 and 1: (words, 8 rows, sign and non-zero) uint64, the order the kernel reads."""
    num_words = -(-codes.shape[1] // 64)
    padded = np.zeros((ROWS, num_words * 64), dtype=np.int8)
    padded[: len(codes), : codes.shape[1]] = codes
    packed = [np.packbits(bits, axis=1, bitorder="little").view("<u8") for bits in (padded < 0, padded != 0)]
    return np.ascontiguousarray(np.stack(packed, axis=2).transpose(1, 0, 2))
