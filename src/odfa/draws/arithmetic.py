"""How numbers are made of a key and a counter, by operations that every device rounds alike; here in torch.

Philox4x32-10 (Salmon, Moraes, Dror & Shaw, SC 2011) makes four words of 32 bits of a counter of 128 bits. Two words
make two normal numbers (Box & Muller, 1958). Logarithm, sine and cosine are polynomials (Moshier's Cephes library), so
that only sums, products and square roots are rounded, and these everywhere to the nearest number.

Shape letters: `R` rows · `C` columns · `Q` counters of a row, four columns each.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF

LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
"""ln(1 + x) = x - x^2 / 2 + x^3 times this polynomial in x, highest power first, for sqrt(1/2) <= 1 + x < sqrt(2)."""
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
"""ln 2 in two parts, of which the first times an exponent is exact."""
SQRT_HALF_BITS = 0x3F3504F3
"""sqrt(1/2) as the bits of a float32."""
SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
"""sin(t) = t + t^3 times this polynomial in t^2, for |t| <= pi / 4."""
COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
"""cos(t) = 1 - t^2 / 2 + t^4 times this polynomial in t^2."""
TURN = math.pi / 2 * 2.0**-30
"""Angle of one step of the 30 lower bits of a word; its two upper bits are the quadrant."""


def words(key: int, rows: range | Tensor, columns: int, device: torch.device, *, first_column: int = 0) -> list[Tensor]:
    """The four words of each counter (columns // 4, row), each (R, Q) int64 from 0 to 2^32 - 1.

    Rows are counted up, or these (R,); columns from `first_column`, a multiple of four.
    """
    quads = -(-columns // 4)
    if isinstance(rows, range):
        rows = torch.arange(rows.start, rows.stop, device=device)
    row_RQ = rows.to(device, torch.int64)[:, None].expand(-1, quads)
    return words_at(key, row_RQ, (torch.arange(quads, device=device) + first_column // 4).expand(len(rows), -1))


def words_at(key: int, row: Tensor, quad: Tensor) -> list[Tensor]:
    """The four words of the counters (quad, row), int64 of one shape, each of that shape."""
    c1, c3 = quad >> 32, row >> 32
    c0, c2, keys = quad & MASK, row & MASK, (key & MASK, key >> 32)
    for _ in range(ROUNDS):
        # products of two numbers below 2^32 wrap in int64 and keep their 64 bits
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (second >> 32 & MASK) ^ c1 ^ keys[0], second & MASK
        c2, c3 = (first >> 32 & MASK) ^ c3 ^ keys[1], first & MASK
        keys = (keys[0] + WEYL[0] & MASK, keys[1] + WEYL[1] & MASK)
    return [c0, c1, c2, c3]


def uniforms(words_4RQ: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Multiples of 2^-24 from 0 to below 1, (R, 4 Q) float32; of 2^-53, (R, 2 Q) float64."""
    if dtype == torch.float64:
        w0, w1, w2, w3 = words_4RQ
        high_low = ((w0, w1), (w2, w3))
        return _interleaved([((high << 21) + (low >> 11)).double() * 2.0**-53 for high, low in high_low])
    return _interleaved([uniform(word) for word in words_4RQ])


def uniform(word: Tensor) -> Tensor:
    """A multiple of 2^-24 from 0 to below 1, float32."""
    return (word >> 8).float() * 2.0**-24


def normals(words_4RQ: Sequence[Tensor]) -> Tensor:
    """Independent N(0, 1) to 6.7 standard deviations, (R, 4 Q) float32."""
    w0, w1, w2, w3 = words_4RQ
    return _interleaved([*pair(w0, w1), *pair(w2, w3)])


def pair(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
    """Two normal numbers of two words: sqrt(-2 ln u) cos(a) and sin(a), u and the angle a evenly spread."""
    radius = sqrt(log(radius_word.float() * 2.0**-32 + 2.0**-33) * -2.0)
    quadrant = angle_word >> 30
    t = ((angle_word & 0x3FFFFFFF) - 2**29).float() * TURN
    z = t * t
    sine, cosine = horner(SIN, z) * z * t + t, horner(COS, z) * z * z - z * 0.5 + 1.0
    # a quarter of a turn makes (c, s) of it (-s, c)
    is_odd = (quadrant & 1).bool()
    first, second = torch.where(is_odd, sine, cosine), torch.where(is_odd, cosine, sine)
    first_sign, second_sign = 1 - 2 * ((quadrant ^ quadrant >> 1) & 1), 1 - 2 * (quadrant >> 1)
    return radius * (first * first_sign.float()), radius * (second * second_sign.float())


def log(u: Tensor) -> Tensor:
    """Natural logarithm of normal float32 numbers, within 1e-7 relative to max(1, |ln u|)."""
    bits = u.view(torch.int32)
    exponent = bits - SQRT_HALF_BITS >> 23
    x = (bits - (exponent << 23)).view(torch.float32) - 1.0
    power, z = exponent.float(), x * x
    y = horner(LOG, x) * x * z + power * LN2_LOW - z * 0.5
    return x + y + power * LN2_HIGH


def sqrt(x: Tensor) -> Tensor:
    """Square root of float32 numbers, rounded to the nearest: torch's own is not on every device, MKL's for one."""
    s = x.sqrt()
    # a step of Newton's method gives the nearest number or its neighbour
    s = torch.where(x > 0, s + _residual(x, s) / (2.0 * s), s)
    left, bits = _residual(x, s), s.view(torch.int32)
    above, below = (bits + 1).view(torch.float32) - s, s - (bits - 1).view(torch.float32)
    # (s + a / 2)^2 = s^2 + a s + a^2 / 4, and what is left of x is a whole number of a^2
    return torch.where(left > above * s, s + above, torch.where(left <= -below * s, s - below, s))


def _residual(x: Tensor, s: Tensor) -> Tensor:
    """x - s^2 without rounding, by Dekker's halves of 12 bits."""
    high = (s.view(torch.int32) & -4096).view(torch.float32)
    low = s - high
    return x - high * high - 2.0 * high * low - low * low


def horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """A polynomial, highest power first, with a rounding after each product and each sum."""
    y = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = y * x + coefficient
    return y


def _interleaved(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts), dim=2).flatten(1)
