"""Stage 8: run folders → comparison, tables, figures, samples, angles."""

from odfa.lab.angles import AlignSettings, align
from odfa.lab.comparison import Comparison
from odfa.lab.exports import export
from odfa.lab.samples import DrawnSamples, Samples, SampleSettings, sample
from odfa.lab.trials import CompareSettings, compare

__all__ = [
    "AlignSettings",
    "CompareSettings",
    "Comparison",
    "DrawnSamples",
    "SampleSettings",
    "Samples",
    "align",
    "compare",
    "export",
    "sample",
]
