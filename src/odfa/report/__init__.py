"""Stage 8: run folders → comparison, tables, figures, angles."""

from odfa.report.align import align
from odfa.report.compare import compare
from odfa.report.comparison import Comparison

__all__ = ["Comparison", "align", "compare"]
