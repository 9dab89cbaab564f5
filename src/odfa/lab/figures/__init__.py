"""Figures of a comparison, one file each: whatever is found here, or registered by another package, is drawn."""

from odfa.lab.figures.base import MAIN, ComparisonFigure, draw_all, found

__all__ = ["MAIN", "ComparisonFigure", "draw_all", "found"]
