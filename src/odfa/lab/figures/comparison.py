"""comparison.png: how each arm learned, the gap it closed, and what it reached on test data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from odfa.lab.canvas import open_frame
from odfa.lab.comparison import Comparison
from odfa.lab.figures.base import ComparisonFigure
from odfa.lab.figures.panels import draw_curves, draw_gaps, draw_legend, draw_values, height_of, styles_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Overview(ComparisonFigure, kind="comparison"):
    """Left: validation metric over steps. Middle, where backpropagation and shallow both ran: share of their gap that
    is closed. Right: test metric of each seed."""

    def draw(self, figure: "Figure", comparison: Comparison) -> None:
        """Two panels side by side, three where there is a gap; the arms' names stand below them."""
        has_gaps, styles = bool(comparison.gap_curves()), styles_of(comparison)
        figure.set_size_inches(14 if has_gaps else 10, height_of(comparison, usual=4.2))
        left, *middle, right = figure.subplots(
            1, 3 if has_gaps else 2, width_ratios=(3, 2.4, 2) if has_gaps else (3, 2)
        )
        draw_curves(left, comparison, styles)
        for axes in middle:
            draw_gaps(axes, comparison, styles)
        draw_values(right, comparison, styles)
        open_frame(left, *middle, right)
        draw_legend(figure, left)
