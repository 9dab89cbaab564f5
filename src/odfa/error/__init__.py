"""Stage 1: where the output error e = dL/dy is read, and how it becomes rows."""

from odfa.error.rows import error_rows
from odfa.error.tap import Tap, find_tap

__all__ = ["Tap", "error_rows", "find_tap"]
