"""Power laws of a loss over compute, L(C) = L_inf + a C^(-b), and the range of exponents that the losses allow."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from odfa.data import needs
from odfa.errors import DataError

LEVEL = 0.9
"""Probability with which an interval holds the exponent, where losses scatter normally around the law."""
LEAST, MOST = 1e-3, 4.0
"""Exponents that are looked at."""
_PLACES = 121
_ROUNDING = 1e-6
"""Relative error of a loss below which a law is not told from another: losses are means of float32."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """L(C) = floor + scale C^(-exponent), and the interval of the exponent."""

    floor: float
    """Loss that no compute removes, L_inf."""
    scale: float | None
    """The factor a, in units of the loss at C = 1; None: the loss does not fall."""
    exponent: float | None
    """The exponent b; None: the loss does not fall."""
    low: float | None
    """Lower end of the interval; None: there is none within what is looked at, or too few losses to tell."""
    high: float | None
    """Upper end of the interval; None: as for `low`."""
    fitted_floor: bool
    """Whether the floor is fitted; False: it was given, or there are too few losses and it is 0."""
    freedom: int
    """Losses minus fitted numbers; without any there is no interval."""

    def at(self, compute: float) -> float:
        """The law's loss."""
        if self.scale is None or self.exponent is None:
            return self.floor
        return self.floor + self.scale * float(compute**-self.exponent)


def fit_power_law(compute: Sequence[float], losses: Sequence[float], *, floor: float | None = None) -> PowerLaw:
    """The law of least squares with L_inf >= 0 and a >= 0, and the exponents that an F test does not exclude.

        S(b) = min over L_inf, a of sum (L_i - L_inf - a C_i^(-b))^2
        interval: S(b) <= S(b*) (1 + F(LEVEL; 1, n - p) / (n - p)),   p numbers are fitted to n losses

    For each b the other two are linear, so that only b is searched. The interval is the profile likelihood's for
    scatter of one unknown size; of a few losses it is wide, as it should be.

    Args:
        compute: of each loss, of two different sizes at least.
        losses: as many.
        floor: L_inf where it is known; None: it is fitted to losses of four sizes or more, and 0 for fewer.

    Raises:
        DataError: fewer than two sizes, a loss or compute that is not positive and finite, or a floor that is not below
            every loss. MissingExtra: SciPy is absent.
    """
    x_N, loss_N = np.asarray(compute, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    sizes = len(np.unique(x_N))
    sound = np.isfinite(x_N).all() and np.isfinite(loss_N).all() and (x_N > 0).all() and (loss_N > 0).all()
    if sizes < 2 or len(x_N) != len(loss_N) or not sound:
        raise DataError(f"expected a positive loss for each of two amounts of compute or more, got {list(losses)}")
    if floor is not None and not 0 <= floor < loss_N.min():
        raise DataError(f"floor: expected a loss from 0 to below {loss_N.min():.4g}, the least of all, got {floor:g}")
    fitted = floor is None and sizes >= 4
    centre = math.exp(np.log(x_N).mean())  # powers of numbers near one keep their digits
    profile = partial(_profile, x_N / centre, loss_N, None if fitted else floor or 0.0)
    squares = cache(lambda exponent: profile(exponent)[0])
    best, places = _searched(squares)
    least, level, scale = profile(best)
    freedom = len(loss_N) - 2 - fitted
    common: dict[str, Any] = {"fitted_floor": fitted, "freedom": freedom}
    if scale <= _ROUNDING * loss_N.mean():
        level = float(loss_N.mean()) if fitted else level
        return PowerLaw(floor=level, scale=None, exponent=None, low=None, high=None, **common)
    low, high = _interval(squares, places, best, least, freedom, loss_N)
    return PowerLaw(floor=level, scale=float(scale * centre**best), exponent=float(best), low=low, high=high, **common)


def _profile(x_N: np.ndarray, loss_N: np.ndarray, floor: float | None, exponent: float) -> tuple[float, float, float]:
    """Sum of squares, L_inf and a at an exponent."""
    with needs("scipy", "fits", otherwise="install scikit-learn, which brings it"):
        from scipy.optimize import nnls
    power_N = x_N**-exponent
    if floor is None:
        (level, scale), norm = nnls(np.stack([np.ones_like(power_N), power_N], axis=1), loss_N)
    else:
        (scale,), norm = nnls(power_N[:, None], loss_N - floor)
        level = floor
    return float(norm) ** 2, float(level), float(scale)


def _searched(squares: Callable[[float], float]) -> tuple[float, np.ndarray]:
    """The best exponent, and the places that were looked at, in order, itself among them."""
    from scipy.optimize import minimize_scalar

    places = np.geomspace(LEAST, MOST, _PLACES)
    nearest = int(np.argmin([squares(place) for place in places]))
    ends = (places[max(0, nearest - 1)], places[min(_PLACES - 1, nearest + 1)])
    found = float(minimize_scalar(squares, bounds=ends, method="bounded", options={"xatol": 1e-9}).x)
    best = min(found, float(places[nearest]), key=squares)
    return best, np.unique([*places, best])


def _interval(
    squares: Callable[[float], float], places: np.ndarray, best: float, least: float, freedom: int, loss_N: np.ndarray
) -> tuple[float | None, float | None]:
    """The outermost exponents that are not excluded; None at an end where the last place is not."""
    if freedom < 1:
        return None, None
    from scipy.optimize import brentq
    from scipy.stats import f as fisher

    rounding = len(loss_N) * (_ROUNDING * float(loss_N.mean())) ** 2
    limit = max(least, rounding) * (1 + float(fisher.ppf(LEVEL, 1, freedom)) / freedom)
    inside = [place for place in places if place == best or squares(place) <= limit]
    first, last = (int(np.searchsorted(places, end)) for end in (inside[0], inside[-1]))

    def crossed(outer: int, inner: int) -> float | None:
        if not 0 <= outer < len(places):
            return None
        return float(brentq(lambda exponent: squares(exponent) - limit, places[outer], places[inner]))

    return crossed(first - 1, first), crossed(last + 1, last)
