"""What another package would bring: a figure of a comparison, in one file."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from odfa.lab import Comparison
from odfa.lab.figures import ComparisonFigure


@dataclass(frozen=True, kw_only=True)
class Seconds(ComparisonFigure):
    """Training time of each run against its test metric."""

    def draw(self, figure: Figure, comparison: Comparison) -> None:
        """One point for each run."""
        figure.set_size_inches(3, 2)
        axes = figure.subplots()
        axes.plot([t.result.seconds for t in comparison.trials], self._heights(comparison), "o")

    def _heights(self, comparison: Comparison) -> list[float]:
        return [trial.result.metric["value"] for trial in comparison.trials]


@dataclass(frozen=True, kw_only=True)
class Gaps(Seconds):
    """Drawn only where there is a gap."""

    def draws(self, comparison: Comparison) -> bool:
        """Whether backpropagation and shallow both ran."""
        return bool(comparison.gap_curves())


no_figure = 3
