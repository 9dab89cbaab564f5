"""Stage 8: run folders → comparison, tables, figures, angles."""

from odfa.report.align import align
from odfa.report.compare import compare
from odfa.report.comparison import Comparison
from odfa.report.export import export
from odfa.report.sample import sample

__all__ = ["Comparison", "align", "compare", "export", "sample"]
