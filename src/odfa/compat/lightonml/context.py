"""Results that remember how they were taken."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Context:
    """The acquisition behind an array."""

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

    def __new__(cls, array: Any, context: Context | None) -> "ContextArray":
        """View of `array` that carries `context`."""
        made = np.asarray(array).view(cls)
        made.context = context
        return made

    def __array_finalize__(self, source: Any) -> None:
        self.context = getattr(source, "context", None)
