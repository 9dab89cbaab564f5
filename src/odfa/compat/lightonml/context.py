"""Arrays of results that carry a record of their acquisition."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class Context:
    """How the values of an array were acquired: exposure, region, time, lit features."""

    exposure_us: int
    frametime_us: int
    output_roi: tuple[tuple[int, int], tuple[int, int]]
    """(column, row) of the first pixel, (columns, rows) read: that library's order."""
    start: datetime
    end: datetime
    n_ones: int
    """Mean number of lit features per vector."""


class ContextArray(np.ndarray):
    """An array with a `context`; what is computed from it is a plain result without."""

    context: Context | None

    def __new__(cls, array: ArrayLike, context: Context | None) -> "ContextArray":
        """View of `array` that carries `context`."""
        made = np.asarray(array).view(cls)
        made.context = context
        return made

    def __array_finalize__(self, source: object) -> None:
        self.context = getattr(source, "context", None)
