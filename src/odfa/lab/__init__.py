"""Stage 8: run folders → comparison, tables, figures, angles."""

from odfa.lab.angles import align
from odfa.lab.comparison import Comparison
from odfa.lab.exports import export
from odfa.lab.text_samples import sample
from odfa.lab.trials import CompareSettings, compare

__all__ = ["CompareSettings", "Comparison", "align", "compare", "export", "sample"]
