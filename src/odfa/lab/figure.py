"""One picture of a comparison: how each arm learned, the gap it closed, and what it reached on test data."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odfa.data import needs
from odfa.lab.comparison import Comparison
from odfa.lab.destination import save_figure

Curve = Sequence[tuple[int, float]]
Style = tuple[str, Any]
"""Colour and dashes of matplotlib."""

_MANY = 5
_DASHES = ("-", "--", ":", "-.")


def draw(comparison: Comparison, path: Path) -> None:
    """Left: validation metric over steps, mean and range over seeds. Middle, where backpropagation and shallow both
    ran: share of their gap that is closed. Right: test metric of each seed.

    Raises:
        MissingExtra: matplotlib is absent. RunFolderError: the file cannot be written.
    """
    with needs("matplotlib", "figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    metric, curves, gaps = comparison.metric["name"], comparison.curves(), comparison.gap_curves()
    styles = _styles(comparison)
    figure = Figure(figsize=(14 if gaps else 10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, *middle, right = figure.subplots(1, 3 if gaps else 2, width_ratios=(3, 2.4, 2) if gaps else (3, 2))
    _draw_curves(left, curves, styles)
    left.set(title=f"{comparison.recipe}: validation", xlabel="optimiser steps", ylabel=f"validation {metric}")
    for axes in middle:
        _draw_gaps(axes, gaps, styles)
    _draw_values(right, comparison.values(), styles)
    for (name, value), dashes in zip(comparison.references.items(), itertools.cycle(_DASHES)):
        right.axhline(value, color="#555555", linestyle=dashes, linewidth=1)
        right.annotate(name, (len(comparison.values()) - 0.42, value), fontsize=8, va="bottom", ha="right")
    right.set(title="test, one point per seed", ylabel=f"test {metric}")
    for axes in (left, *middle, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (left, right):
        if metric == "accuracy":
            axes.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:.4g} %")
        looked = any(curve for of_seeds in curves.values() for curve in of_seeds)
        if metric == "perplexity" and (looked or axes is right):  # nothing has no logarithm
            axes.set_yscale("log")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(curves), frameon=False)
    save_figure(figure, path, dpi=150)


def _styles(comparison: Comparison) -> dict[str, Style]:
    """Arm → colour of its rule, dashes of its projection."""
    return {
        trial.arm: (
            trial.config.rule.colour,
            "-" if trial.config.projection is None else trial.config.projection.dashes,
        )
        for trial in comparison.trials
    }


def _draw_curves(axes: Any, curves: Mapping[str, Sequence[Curve]], styles: Mapping[str, Style]) -> None:
    for arm, of_seeds in curves.items():
        colour, dashes = styles[arm]
        steps = [step for step, _ in of_seeds[0]]
        columns = list(zip(*([value for _, value in curve] for curve in of_seeds), strict=True))
        means = [sum(column) / len(column) for column in columns]
        axes.plot(steps, means, label=arm, color=colour, linestyle=dashes, linewidth=2)
        lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(steps, lowest, highest, color=colour, alpha=0.15, linewidth=0)


def _draw_gaps(axes: Any, gaps: Mapping[str, Curve], styles: Mapping[str, Style]) -> None:
    for arm, curve in gaps.items():
        colour, dashes = styles[arm]
        axes.plot(*zip(*curve, strict=True), color=colour, linestyle=dashes, linewidth=2)
    axes.set(title="share of the shallow → bp gap closed", xlabel="optimiser steps", ylim=(-0.25, 1.1))
    axes.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:.4g} %")


def _draw_values(axes: Any, values: Mapping[str, Sequence[float]], styles: Mapping[str, Style]) -> None:
    for place, (arm, of_seeds) in enumerate(values.items()):
        colour, _ = styles[arm]
        mean = sum(of_seeds) / len(of_seeds)
        axes.plot([place - 0.25, place + 0.25], [mean, mean], color=colour, linewidth=3)
        axes.plot([place] * len(of_seeds), of_seeds, "o", color=colour, markerfacecolor="white", markersize=6)
    many = len(values) > _MANY  # names side by side would run into each other
    names = [arm if many else arm.replace(":", "\n") for arm in values]
    axes.set_xticks(range(len(values)), names, **({"rotation": 35, "ha": "right"} if many else {}))
    axes.set_xlim(-0.6, len(values) - 0.4)
