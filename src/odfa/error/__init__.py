"""Stage 1: where the output error e = dL/dy is read, and how it becomes rows."""

from odfa.error.by_rows import HeadError, HeadSums, Reduction, head_loss
from odfa.error.rows import Errors, error_rows, leading_shape
from odfa.error.tap import Tap, find_tap, find_taps

__all__ = [
    "Errors",
    "HeadError",
    "HeadSums",
    "Reduction",
    "Tap",
    "error_rows",
    "find_tap",
    "find_taps",
    "head_loss",
    "leading_shape",
]
