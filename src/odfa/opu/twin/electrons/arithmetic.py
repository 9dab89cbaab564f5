"""How electrons are drawn and counted, by operations that every device rounds alike; here in torch.

Shot noise of a bright pixel is Gaussian, and one normal number carries it and the read noise. A faint pixel takes a
counter of its own from a second source: two words for its read noise, one for the inversion below.

- From 10 electrons on: the Poisson quantile of a normal number (Giles, ACM Trans. Math. Softw. 42, 7 (2016), Algorithm
  955, equation 11 to the order 1 / lambda). Total variation distance from the Poisson law: 1.4e-4 at 10 electrons,
  9e-6 at 100.
- Below: inversion of the distribution function by a uniform number of 24 bits, sums in float32; 1e-6.

Shape letters: `R` frames · `C` pixels · `X` faint pixels.
"""

import math

import torch
from torch import Tensor

from odfa.draws import Draws
from odfa.draws.arithmetic import horner, pair, sqrt, uniform, words_at

GAUSSIAN_FROM_E = 100.0
"""Mean electrons from which shot noise is drawn as N(lambda, lambda): skewness and excess kurtosis of the Poisson law,
lambda^-1/2 and lambda^-1, are then below 0.1 and 0.01."""
QUANTILE_FROM_E = 10.0
"""Mean electrons from which it is the quantile of a normal number, floor of lambda + sqrt(lambda) w + Q0(w) + Q1(w) /
sqrt(lambda) + Q2(w) / lambda; below, the distribution function is inverted."""
Q0 = (1 / 3, 1 / 6)
"""Q0(w) = 1 / 3 + w^2 / 6, lowest power first."""
Q1 = (-1 / 36, -1 / 72)
"""Q1(w) = w (-1 / 36 - w^2 / 72)."""
Q2 = (-8 / 405, 7 / 810, 1 / 270)
"""Q2(w) = -8 / 405 + 7 / 810 w^2 + w^4 / 270."""
TERMS = 36
"""Electrons at which the distribution function, in float32, has stopped to grow for every mean below 10."""
EXP = tuple(1 / math.factorial(n) for n in range(7, -1, -1))
"""e^t as a polynomial, highest power first, for -10 / 32 < t <= 0."""
SQUARINGS = 5
"""e^-lambda = (e^(-lambda / 2^5))^(2^5)."""


def electrons(mean_RC: Tensor, read_e: float, shot: bool, bright: Draws, faint: Draws, first_row: int) -> Tensor:
    """Poisson(mean) + N(0, read_e^2), or without `shot` mean + N(0, read_e^2); rows are those from `first_row` on.

    Noise is a float32 number, and is added to the mean in the mean's type.
    """
    rows, columns = mean_RC.shape
    noise_RC = bright.normal(rows, columns, first_row=first_row, device=mean_RC.device)
    if not shot:
        return noise_RC * read_e + mean_RC
    electrons_RC = noise_RC * sqrt(mean_RC.float() + read_e**2) + mean_RC
    is_faint_RC = mean_RC < GAUSSIAN_FROM_E
    row_RC = torch.arange(first_row, first_row + rows, device=mean_RC.device)[:, None].expand(-1, columns)
    column_RC = torch.arange(columns, device=mean_RC.device).expand(rows, -1)
    if not may_pick(mean_RC.device):
        drawn_RC = _faint(mean_RC, noise_RC, read_e, words_at(faint.key, row_RC, column_RC))
        return torch.where(is_faint_RC, drawn_RC, electrons_RC)
    words_4X = words_at(faint.key, row_RC[is_faint_RC], column_RC[is_faint_RC])
    electrons_RC[is_faint_RC] = _faint(mean_RC[is_faint_RC], noise_RC[is_faint_RC], read_e, words_4X)
    return electrons_RC


def may_pick(device: torch.device) -> bool:
    """Whether faint pixels are picked out; one would have to wait for other devices to tell which these are."""
    return device.type == "cpu"


def counted(electrons_RC: Tensor, counts_per_e: float, full_scale: int, dtype: torch.dtype) -> Tensor:
    """Round and clip; halves go to the even count."""
    return (electrons_RC * counts_per_e).clamp_(0, full_scale).round_().to(dtype)


def _faint(mean_X: Tensor, noise_X: Tensor, read_e: float, words_4X: list[Tensor]) -> Tensor:
    lambda_X = mean_X.float()
    read_X, _ = pair(words_4X[0], words_4X[1])
    drawn_X = torch.where(
        lambda_X < QUANTILE_FROM_E, inverted(lambda_X, uniform(words_4X[2])), quantile(lambda_X, noise_X)
    )
    return (read_X * read_e + drawn_X).to(mean_X.dtype)


def quantile(lambda_X: Tensor, w_X: Tensor) -> Tensor:
    """The Poisson quantile at the probability of a normal number below `w_X`, float32."""
    root_X, square_X = sqrt(lambda_X), w_X * w_X
    inverse_X = 1.0 / root_X
    second_X = (square_X * Q2[2] + Q2[1]) * square_X + Q2[0]
    first_X = (square_X * Q1[1] + Q1[0]) * w_X
    rest_X = (second_X * inverse_X + first_X) * inverse_X + (square_X * Q0[1] + Q0[0])
    return ((root_X * w_X + lambda_X) + rest_X).floor_().clamp_(min=0.0)


def inverted(lambda_X: Tensor, u_X: Tensor) -> Tensor:
    """The number k with P(K < k) <= u < P(K <= k), K ~ Poisson(lambda) below 10, float32."""
    term_X = horner(EXP, lambda_X * -(2.0**-SQUARINGS))
    for _ in range(SQUARINGS):
        term_X = term_X * term_X
    sum_X, count_X = term_X, (u_X >= term_X).float()
    for k in range(1, TERMS):
        # a sum that has stopped to grow, just below 1, counts no more
        term_X = term_X * lambda_X * (1.0 / k)
        before_X, sum_X = sum_X, sum_X + term_X
        count_X = count_X + ((u_X >= sum_X) & (sum_X > before_X)).float()
    return count_X
