"""H of a vector that one program holds: which index bits each product sums over, and where entries lie meanwhile.

Any order of the products gives H; it decides only how often entries move between threads. Tensor cores leave a product
(mma.m16n8k8, columns shared among warps) like this, lowest index bits first:

    result    rows: 3 bits in groups of lanes, registers; columns: a register, 2 in quads of lanes, warps, registers
    operand   rows: 2 bits in quads of lanes, registers; columns: 3 in groups of lanes, warps, registers

So bits that a thread or its quad holds are summed over next, and bits of groups come into the quads by that: 2^f points
after 2^f points without any movement. Bits of warps are summed over last, after the only exchange in shared memory. The
next transform begins where this one ends, and has them in registers. Where memory is read, a thread has entries 0-3.
"""

import triton
import triton.language as tl


@triton.jit
def signs(LOG: tl.constexpr):
    """H of 2^LOG points."""
    place = tl.arange(0, 1 << LOG)
    both = place[:, None] & place[None, :]
    both ^= both >> 4
    both ^= both >> 2
    both ^= both >> 1
    return (1 - 2 * (both & 1)).to(tl.float32)


@triton.jit
def multiply(h_KK, x_KC, PRECISION: tl.constexpr):
    """H x, (K, C). tf32 keeps 11 bits of a number: x as two numbers of 11 bits each; signs are exact."""
    if PRECISION == "tf32":
        low_KC = x_KC - (x_KC.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        z_KC = tl.dot(h_KK, low_KC, input_precision="tf32")
        # x - low is exact; said so, it is made only now and takes the shared memory of low
        return tl.dot(h_KK, x_KC - low_KC, acc=z_KC, input_precision="tf32")
    return tl.dot(h_KK, x_KC, input_precision=PRECISION)


@triton.constexpr_function
def products(log_points, log_warps, second):
    """Index bits of the rows, which are summed over, and of the columns of each product, lowest first.

    `second`: of the second of three transforms: it begins where the first and the third end, and ends where they begin.
    """
    # in quads, in groups, in warps, in registers: where memory is read, and after a transform from there
    quad, group = (2, 3), (4, 5, 6)
    warps, own = tuple(range(7, 7 + log_warps)), (0, 1, *range(7 + log_warps, log_points))
    more = log_warps - 3
    if more >= 0:
        group_after, warps_after, own_after = warps[:3], group + own[:more], own[more:] + warps[3:]
    else:
        group_after, warps_after, own_after = group, own[:log_warps], own[log_warps:] + warps
    if second:
        group, warps, own, group_after, warps_after, own_after = group_after, warps_after, own_after, group, warps, own
    factors, left, made, held = log_points // 4, set(range(log_points)), [], quad
    for i in range(factors - 1):
        # first those that are to be in quads or warps, where no rows of the last product come to lie
        free = sorted((bit for bit in own if bit in left), key=lambda bit: bit in group_after + own_after)
        rows = (held + tuple(free))[: (log_points + i) // factors]
        others = tuple(bit for bit in own if bit not in rows)
        made.append((rows, group + warps + others))
        left -= set(rows)
        held, own, group = group[1:], (group[0], *others, *rows[3:]), rows[:3]
    rows = tuple(sorted(left, key=lambda bit: bit not in group_after))
    others = tuple(bit for bit in own_after if bit not in rows)
    made.append((rows, others[:1] + quad + warps_after + others[1:]))
    return tuple(made)


@triton.constexpr_function
def rows_log(log_points, log_warps, second, i):
    """log2 of the rows of product i."""
    return len(products(log_points, log_warps, second)[i][0])


@triton.constexpr_function
def into(log_points, log_warps, second, i, axis):
    """Axis of a vector, one of two places for each index bit, that is this axis of the operand of product i."""
    rows, columns = products(log_points, log_warps, second)[i]
    return log_points - 1 - (columns + rows)[log_points - 1 - axis]


@triton.constexpr_function
def back(log_points, log_warps, second, i, axis):
    """Axis of the result of product i that is this axis of a vector."""
    rows, columns = products(log_points, log_warps, second)[i]
    return log_points - 1 - (columns + rows).index(log_points - 1 - axis)


@triton.jit
def _product(
    x_J, LOG: tl.constexpr, LOG_WARPS: tl.constexpr, SECOND: tl.constexpr, AT: tl.constexpr, PRECISION: tl.constexpr
):
    """H over the index bits of product AT."""
    # Triton takes shapes and orders as tuples of literals or from comprehensions over one
    ROWS: tl.constexpr = rows_log(LOG, LOG_WARPS, SECOND, AT)
    x = tl.reshape(x_J, [2 for a in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)[:LOG]])
    x = tl.permute(
        x, [into(LOG, LOG_WARPS, SECOND, AT, a) for a in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)[:LOG]]
    )
    z = multiply(signs(ROWS), tl.reshape(x, [1 << ROWS, 1 << LOG - ROWS]), PRECISION)
    z = tl.reshape(z, [2 for a in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)[:LOG]])
    z = tl.permute(
        z, [back(LOG, LOG_WARPS, SECOND, AT, a) for a in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)[:LOG]]
    )
    return tl.reshape(z, [1 << LOG])


@triton.jit
def transform(x_J, LOG: tl.constexpr, LOG_WARPS: tl.constexpr, SECOND: tl.constexpr, PRECISION: tl.constexpr):
    """H over all index bits of J = 2^LOG entries, 11 <= LOG <= 14; entries come and go in natural order."""
    for i in tl.static_range(LOG // 4):
        x_J = _product(x_J, LOG, LOG_WARPS, SECOND, i, PRECISION)
    return x_J
