"""LLVM code for vectors of 64 bytes, as numba intrinsics: butterflies in registers, signs from bits, rounding shifts.

Vectors are written as LLVM types, so that the compiler splits them where registers are narrower (AVX2, NEON).
Two element types: float32 (16 lanes) and int16 (32 lanes). A *unit* is 32 entries: one vector of int16, two of float32.
Literal arguments choose the code; addresses are integers, strides are in bytes.
"""

import operator
from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32 = ir.FloatType()
_WORD = types.int64
UNIT = 32
_TILE = 16
"""Vectors that one kernel holds in registers."""
Vectors = list[ir.Value]
"""Values of the compiled code that are vectors of one element type."""


class Lanes:
    """Emits code for one element type."""

    def __init__(self, builder: ir.IRBuilder, element: types.Type, one: ir.Value | None = None) -> None:
        """`one`: a float32 1.0 that the compiler cannot see through."""
        self.builder, self.real = builder, element == types.float32
        self.lanes = 16 if self.real else 32
        self.vector = ir.VectorType(_F32 if self.real else _I16, self.lanes)
        self.mask = ir.VectorType(ir.IntType(1), self.lanes)
        self.unit_bytes = UNIT * (4 if self.real else 2)
        self._minus = self.splat(builder.fneg(one)) if self.real and one is not None else None

    def at(self, base: ir.Value, *terms: ir.Value | int | tuple[ir.Value, int]) -> ir.Value:
        """Address base + terms; a pair (value, factor) is multiplied, an int is a constant."""
        for term in terms:
            if isinstance(term, tuple):
                term = self.builder.mul(term[0], ir.Constant(_I64, term[1]))
            base = self.builder.add(base, ir.Constant(_I64, term) if isinstance(term, int) else term)
        return base

    def load(self, address: ir.Value, kind: ir.Type | None = None, align: int = 64) -> ir.Value:
        """The vector at an address, or the value of another type, at an address that is a multiple of `align`."""
        kind = kind or self.vector
        loaded = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), typ=kind)
        loaded.align = align
        return loaded

    def store(self, value: ir.Value, address: ir.Value, *, streaming: bool = False, align: int = 64) -> None:
        """Write a vector, or a value of another type, to an address that is a multiple of `align`."""
        stored = self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()))
        stored.align = align
        if streaming:  # past the caches: nobody reads it soon, and the line need not be fetched first
            stored.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(_I32, 1)]))

    def splat(self, scalar: ir.Value, lanes: int | None = None) -> ir.Value:
        """The scalar in every lane."""
        lanes = lanes or self.lanes
        empty = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        return self.shuffle(self.builder.insert_element(empty, scalar, ir.Constant(_I32, 0)), empty, [0] * lanes)

    def shuffle(self, a: ir.Value, b: ir.Value, index: Sequence[int]) -> ir.Value:
        """Lanes of a, then b, by index."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(index)), list(index)))

    def flip(self, value: ir.Value, address: ir.Value) -> ir.Value:
        """Negate the lanes whose bit is set at `address`."""
        bits = self.load(address, ir.IntType(self.lanes), align=2)
        minus = self.builder.fneg(value) if self.real else self.builder.neg(value)
        return self.builder.select(self.builder.bitcast(bits, self.mask), minus, value)

    def cross(self, values: Vectors) -> Vectors:
        """Walsh-Hadamard transform over the index of the vectors."""
        # unrolled while the code is written: log2 n rounds of additions between registers, nothing in memory
        b, values, half = self.builder, list(values), 1
        add, sub = (b.fadd, self._minus_by_product) if self.real else (b.add, b.sub)
        while half < len(values):
            for i in (i for i in range(len(values)) if not i & half):
                values[i], values[i + half] = add(values[i], values[i + half]), sub(values[i], values[i + half])
            half *= 2
        return values

    def _minus_by_product(self, a: ir.Value, b: ir.Value) -> ir.Value:
        # a - b as (-1) b + a, exact: processors with as many multipliers as adders do twice as many at a time
        name, kind = f"llvm.fmuladd.v{self.lanes}f32", ir.FunctionType(self.vector, [self.vector] * 3)
        known = self.builder.module.globals.get(name)
        return self.builder.call(known or ir.Function(self.builder.module, kind, name), [b, self._minus, a])

    def swap(self, values: Vectors) -> Vectors:
        """Exchange the four bits of the index of 16 vectors with bits 0 to 3 of the lane."""
        # A butterfly between the lanes of a register takes a shuffle, a sum, a difference and a choice (`top_lane`).
        # Exchanged first, by one shuffle a vector and bit, the same butterflies run between registers: no choice, and
        # half of the arithmetic.
        values, lanes = list(values), range(self.lanes)
        for bit in (1, 2, 4, 8):
            low = [lane if not lane & bit else self.lanes + (lane ^ bit) for lane in lanes]
            high = [lane | bit if not lane & bit else self.lanes + lane for lane in lanes]
            for i in (i for i in range(_TILE) if not i & bit):
                a, b = values[i], values[i + bit]
                values[i], values[i + bit] = self.shuffle(a, b, low), self.shuffle(a, b, high)
        return values

    def top_lane(self, values: Vectors) -> Vectors:
        """Walsh-Hadamard transform over lane bit 4, which only vectors of 32 lanes have."""
        if self.real:
            return values
        upper = ir.Constant(self.mask, [0] * 16 + [1] * 16)
        out = []
        for value in values:
            other = self.shuffle(value, value, [lane ^ 16 for lane in range(32)])
            out.append(self.builder.select(upper, self.builder.sub(other, value), self.builder.add(other, value)))
        return out

    def rounding(self, values: Vectors, shift: ir.Value) -> Vectors:
        """Half of 2^shift on vector 0, which a transform over the vectors' index spreads to all of them."""
        # Shifting rounds down, which would add a bias of half a step to every output; half a step on input 0 of the
        # transform reaches each output once (the first column of H is all ones) and costs one addition instead of 16.
        if self.real:
            return values
        half = self.builder.lshr(self.builder.shl(ir.Constant(_I16, 1), shift), ir.Constant(_I16, 1))
        return [self.builder.add(values[0], self.splat(half)), *values[1:]]

    def shifted(self, values: Vectors, shift: ir.Value) -> Vectors:
        """int16: divide by 2^shift, rounding down; float32: as they are."""
        if self.real:
            return values
        return [self.builder.ashr(value, self.splat(shift)) for value in values]

    def scale(self, value: ir.Value, factor: ir.Value) -> ir.Value:
        """value * factor; int16: the upper half of the product, rounded down."""
        if self.real:
            return self.builder.fmul(value, factor)
        wide = ir.VectorType(_I32, self.lanes)
        product = self.builder.mul(self.builder.sext(value, wide), self.builder.sext(factor, wide))
        return self.builder.trunc(self.builder.ashr(product, ir.Constant(wide, [16] * self.lanes)), self.vector)

    def to_float(self, value: ir.Value, half: int) -> ir.Value:
        """The lower (`half` 0) or upper 16 of 32 int16 lanes as float32."""
        lanes = self.shuffle(value, value, range(16 * half, 16 * half + 16))
        return self.builder.sitofp(lanes, ir.VectorType(_F32, 16))


def _literals(*kinds: types.IntegerLiteral) -> tuple[int, ...]:
    return tuple(operator.index(kind.literal_value) for kind in kinds)


@intrinsic(prefer_literal=True)
def butterfly(
    _typing,
    like,  # (), float32 or int16: type of the entries
    log_r,  # (), int64 literal, 0 to 4
    paired,  # (), int64 literal, 0 or 1
    src,  # address of 2^log_r units
    src_step,  # (), int64, bytes from unit to unit
    dst,  # address of 2^log_r units, written
    dst_step,  # (), int64, bytes
    shift,  # (), int64, right shift of int16 results; 0 for float32
):
    """H over 2^log_r vectors a step apart (`paired`: over the two halves of a float32 unit, too), then a shift."""
    log, pair = _literals(log_r, paired)
    signature = types.void(like, log_r, paired, *[_WORD] * 5)

    def codegen(context, builder, _signature, args):
        src, src_step, dst, dst_step, shift = args[3:]
        lanes = Lanes(builder, like, _one(builder, shift))
        places = _places(log, pair and lanes.real)
        shift16 = builder.trunc(shift, _I16)
        values = [lanes.load(lanes.at(src, (src_step, k), 64 * half)) for k, half in places]
        values = lanes.shifted(lanes.cross(lanes.rounding(values, shift16)), shift16)
        for value, (k, half) in zip(values, places, strict=True):
            lanes.store(value, lanes.at(dst, (dst_step, k), 64 * half))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def middle(
    _typing,
    like,  # (), float32 or int16: type of the entries
    log_r,  # (), int64 literal, 0 to 4
    paired,  # (), int64 literal, 0 or 1
    at,  # address of 2^log_r units, changed in place
    step,  # (), int64, bytes from unit to unit
    shift,  # (), int64
    signs,  # address of the first uint32 of sign bits
    signs_step,  # (), int64, bytes from unit to unit
    rows,  # address of the first uint8 row number
    rows_step,  # (), int64, bytes from unit to unit
    table,  # address of (V, 32) like: singular values
):
    """In place: H, singular values and signs, H again, over 2^log_r vectors a step apart, then a shift.

    Vector k has its sign bits at signs + k signs_step, and the singular values of row number rows[k rows_step] of the
    table; a float32 unit is two vectors with the two halves of both.
    """
    log, pair = _literals(log_r, paired)
    signature = types.void(like, log_r, paired, *[_WORD] * 8)

    def codegen(context, builder, _signature, args):
        at, step, shift, signs, signs_step, rows, rows_step, table = args[3:]
        lanes = Lanes(builder, like, _one(builder, shift))
        places = _places(log, pair and lanes.real)
        shift16 = builder.trunc(shift, _I16)
        values = lanes.cross([lanes.load(lanes.at(at, (step, k), 64 * half)) for k, half in places])
        for i, (k, half) in enumerate(places):
            row = builder.zext(lanes.load(lanes.at(rows, (rows_step, k)), ir.IntType(8), align=1), _I64)
            factor = lanes.load(lanes.at(table, (row, lanes.unit_bytes), 64 * half))
            values[i] = lanes.flip(lanes.scale(values[i], factor), lanes.at(signs, (signs_step, k), 2 * half))
        values = lanes.shifted(lanes.cross(lanes.rounding(values, shift16)), shift16)
        for value, (k, half) in zip(values, places, strict=True):
            lanes.store(value, lanes.at(at, (step, k), 64 * half))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def tile(
    _typing,
    like,  # (), float32 or int16: type of the entries
    signed,  # (), int64 literal, 0 or 1
    src,  # address of 16 units of 32 entries
    dst,  # address of 16 units, written
    signs,  # address of (16,) uint32; unused without `signed`
    shift,  # (), int64
):
    """H over index bits 0-3 and 5-8 (int16: 0-8) of 512 entries, which are left in exchanged places, then a shift.

    float32: one half of each unit; call it for both. With `signed` the sign bits at `signs` are applied first.
    """
    (flips,) = _literals(signed)
    signature = types.void(like, signed, *[_WORD] * 4)

    def codegen(context, builder, _signature, args):
        src, dst, signs, shift = args[2:]
        lanes = Lanes(builder, like, _one(builder, shift))
        shift16 = builder.trunc(shift, _I16)
        values = [lanes.load(lanes.at(src, lanes.unit_bytes * k)) for k in range(_TILE)]
        if flips:
            values = [lanes.flip(value, lanes.at(signs, 4 * k)) for k, value in enumerate(values)]
        values = lanes.swap(lanes.cross(lanes.top_lane(values)))
        values = lanes.shifted(lanes.cross(lanes.rounding(values, shift16)), shift16)
        for k, value in enumerate(values):
            lanes.store(value, lanes.at(dst, lanes.unit_bytes * k))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def last_tile(
    _typing,
    like,  # (), float32 or int16: type of the entries
    as_float,  # (), int64 literal, 0 or 1: write int16 values as float32
    streaming,  # (), int64 literal, 0 or 1: write past the caches
    src,  # address of 16 units of 32 entries
    dst,  # address of the outputs' units, float32 or int16
    limit,  # (), int64: units that dst has room for
    spill,  # address of as many units as a block has, written from `limit` on
    signs,  # address of (16,) uint32
    order,  # address of (16,) int32: output unit of each unit
    scale,  # (), float32
):
    """The tile that ends a projection, with signs: unit k goes to dst + order[k] units.

    Units from number `limit` on go to `spill`; int16 values are written as float32 times `scale` if asked.
    """
    widen, stream = _literals(as_float, streaming)
    signature = types.void(like, as_float, streaming, *[_WORD] * 6, types.float32)

    def codegen(context, builder, _signature, args):
        src, dst, limit, spill, signs, order, scale = args[3:]
        lanes = Lanes(builder, like, scale)
        how = {"streaming": bool(stream), "align": 64 if stream else 2}
        values = [lanes.load(lanes.at(src, lanes.unit_bytes * k)) for k in range(_TILE)]
        values = lanes.cross(lanes.swap(lanes.cross(lanes.top_lane(values))))
        values = [lanes.flip(value, lanes.at(signs, 4 * k)) for k, value in enumerate(values)]
        factor = lanes.splat(scale, 16)
        for k, value in enumerate(values):
            unit = builder.zext(lanes.load(lanes.at(order, 4 * k), _I32, align=4), _I64)
            # the address is selected rather than branched on, so that the 16 stores stay one run of vector code
            base = builder.select(builder.icmp_unsigned("<", unit, limit), dst, spill)
            if lanes.real or not widen:
                lanes.store(value, lanes.at(base, (unit, lanes.unit_bytes)), **how)
                continue
            for half in (0, 1):
                part = builder.fmul(lanes.to_float(value, half), factor)
                lanes.store(part, lanes.at(base, (unit, 4 * UNIT), 64 * half), **how)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def load_unit(
    _typing,
    like,  # (), float32 or int16: type of the entries of dst
    src,  # address of (32,) float32, or int8 where like is int16; at any alignment
    signs,  # address of one uint32 of sign bits
    factor,  # (), int64: what int8 entries are multiplied by
    dst,  # address of (32,) like, written
):
    """A unit of signed input: 32 float32, or 32 int8 times `factor` as int16."""
    signature = types.void(like, *[_WORD] * 4)

    def codegen(context, builder, _signature, args):
        lanes = Lanes(builder, like)
        src, signs, factor, dst = args[1:]
        for half in range(2 if lanes.real else 1):
            if lanes.real:
                value = lanes.load(lanes.at(src, 64 * half), align=4)
            else:
                narrow = lanes.load(src, ir.VectorType(ir.IntType(8), 32), align=1)
                value = builder.mul(builder.sext(narrow, lanes.vector), lanes.splat(builder.trunc(factor, _I16)))
            lanes.store(lanes.flip(value, lanes.at(signs, 2 * half)), lanes.at(dst, 64 * half))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def lit_of_64(
    _typing,
    at,  # address of (64,) int8
):
    """Number of non-zeros among 64 int8 entries; -2^40 if one is not -1, 0 or 1, so that no sum can hide it."""

    def codegen(context, builder, _signature, args):
        bytes_64 = ir.VectorType(ir.IntType(8), 64)
        values = Lanes(builder, types.int16).load(args[0], bytes_64, align=1)
        lit = builder.icmp_signed("!=", values, ir.Constant(bytes_64, [0] * 64))
        moved = builder.add(values, ir.Constant(bytes_64, [1] * 64))
        bad = builder.icmp_unsigned(">", moved, ir.Constant(bytes_64, [2] * 64))
        count = builder.ctpop(builder.bitcast(lit, _I64))
        wrong = builder.icmp_unsigned("!=", builder.bitcast(bad, _I64), ir.Constant(_I64, 0))
        return builder.select(wrong, ir.Constant(_I64, -(2**40)), count)

    return types.int64(types.int64), codegen


def _one(builder: ir.Value, shift: ir.Value) -> ir.Value:
    """1.0 as a float32 that is made of the shift, which is 0 for float32."""
    # from a literal 1.0 the compiler would turn the products of `_minus_by_product` back into subtractions
    return builder.sitofp(builder.add(shift, ir.Constant(_I64, 1)), _F32)


def _places(log: int, pair: bool) -> list[tuple[int, int]]:
    """(step number, half of the unit) of each vector that a kernel holds."""
    return [(k, half) for k in range(1 << log) for half in range(1 + pair)]
