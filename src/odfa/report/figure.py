"""One picture of a comparison: how each method learned, and what it reached on test data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odfa.data import needs
from odfa.train.folder import folder_errors

Curve = Sequence[tuple[int, float]]

# Okabe & Ito's palette, told apart with any colour vision
_COLOURS: dict[str, str] = {
    "bp": "#000000",
    "shallow": "#999999",
    "dfa": "#0072B2",
    "tdfa": "#56B4E9",
    "odfa": "#D55E00",
    "identity": "#009E73",
}
_DASHES: dict[str, Any] = {
    "bp": "-",
    "shallow": ":",
    "dfa": "--",
    "tdfa": "-.",
    "odfa": "-",
    "identity": (0, (5, 1, 1, 1)),
}


def draw(
    curves: Mapping[str, Sequence[Curve]], values: Mapping[str, Sequence[float]], metric: str, title: str, path: Path
) -> None:
    """Left: validation metric over steps, mean and range over seeds. Right: test metric of each seed.

    Raises:
        MissingExtra: matplotlib is absent. RunFolderError: the file cannot be written.
    """
    with needs("matplotlib", "figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_curves(left, curves)
    left.set(title=f"{title}: validation", xlabel="optimiser steps", ylabel=f"validation {metric}")
    _draw_values(right, values)
    right.set(title="test, one point per seed", ylabel=f"test {metric}")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if metric == "accuracy":
            axes.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:.4g} %")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(curves), frameon=False)
    with folder_errors(path):
        figure.savefig(path, dpi=150)


def _draw_curves(axes: Any, curves: Mapping[str, Sequence[Curve]]) -> None:
    for method, of_seeds in curves.items():
        steps = [step for step, _ in of_seeds[0]]
        columns = list(zip(*([value for _, value in curve] for curve in of_seeds), strict=True))
        means = [sum(column) / len(column) for column in columns]
        axes.plot(steps, means, label=method, color=_COLOURS[method], linestyle=_DASHES[method], linewidth=2)
        lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(steps, lowest, highest, color=_COLOURS[method], alpha=0.15, linewidth=0)


def _draw_values(axes: Any, values: Mapping[str, Sequence[float]]) -> None:
    for place, (method, of_seeds) in enumerate(values.items()):
        mean = sum(of_seeds) / len(of_seeds)
        axes.plot([place - 0.25, place + 0.25], [mean, mean], color=_COLOURS[method], linewidth=3)
        axes.plot([place] * len(of_seeds), of_seeds, "o", color=_COLOURS[method], markerfacecolor="white", markersize=6)
    axes.set_xticks(range(len(values)), list(values))
    axes.set_xlim(-0.6, len(values) - 0.4)
