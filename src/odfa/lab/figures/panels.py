"""Panels that figures of a comparison are put together from; a panel draws into axes that it is given."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from odfa.lab.comparison import Comparison
from odfa.project.base import Dashes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Style = tuple[str, Dashes]
"""Colour and dashes of a line, in matplotlib's words."""

_MANY = 5
_DASHES = ("-", "--", ":", "-.")


def styles_of(comparison: Comparison) -> dict[str, Style]:
    """Arm → colour of its rule, dashes of its projection."""
    return {
        trial.arm: (
            trial.config.rule.colour,
            "-" if trial.config.projection is None else trial.config.projection.dashes,
        )
        for trial in comparison.trials
    }


def draw_curves(axes: "Axes", comparison: Comparison, styles: Mapping[str, Style]) -> None:
    """Validation metric over optimiser steps: a line for each arm's mean over seeds, a band from least to greatest."""
    metric, curves = comparison.metric["name"], comparison.curves()
    for arm, of_seeds in curves.items():
        colour, dashes = styles[arm]
        steps = [step for step, _ in of_seeds[0]]
        columns = list(zip(*([value for _, value in curve] for curve in of_seeds), strict=True))
        means = [sum(column) / len(column) for column in columns]
        axes.plot(steps, means, label=arm, color=colour, linestyle=dashes, linewidth=2)
        lowest, highest = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(steps, lowest, highest, color=colour, alpha=0.15, linewidth=0)
    axes.set(title=f"{comparison.recipe}: validation", xlabel="optimiser steps", ylabel=f"validation {metric}")
    axes.grid(alpha=0.3)
    # runs too short for a look at validation have empty lines, and a logarithmic axis needs a value
    _scale(axes, metric, has_values=any(curve for of_seeds in curves.values() for curve in of_seeds))


def draw_gaps(axes: "Axes", comparison: Comparison, styles: Mapping[str, Style]) -> None:
    """Share of the gap between shallow and backpropagation that each arm has closed, over optimiser steps."""
    for arm, curve in comparison.gap_curves().items():
        colour, dashes = styles[arm]
        axes.plot(*zip(*curve, strict=True), color=colour, linestyle=dashes, linewidth=2)
    axes.set(title="share of the shallow → bp gap closed", xlabel="optimiser steps", ylim=(-0.25, 1.1))
    axes.yaxis.set_major_formatter(_percent)
    axes.grid(alpha=0.3)


def draw_values(axes: "Axes", comparison: Comparison, styles: Mapping[str, Style]) -> None:
    """Test metric: a ring for each seed, a bar for each arm's mean, a line for each reference without a network."""
    metric, values = comparison.metric["name"], comparison.values()
    for place, (arm, of_seeds) in enumerate(values.items()):
        colour, _ = styles[arm]
        mean = sum(of_seeds) / len(of_seeds)
        axes.plot([place - 0.25, place + 0.25], [mean, mean], color=colour, linewidth=3)
        axes.plot([place] * len(of_seeds), of_seeds, "o", color=colour, markerfacecolor="white", markersize=6)
    many = len(values) > _MANY  # names side by side would run into each other
    names = [arm if many else arm.replace(":", "\n") for arm in values]
    axes.set_xticks(range(len(values)), names, rotation=35 if many else 0, ha="right" if many else "center")
    axes.set_xlim(-0.6, len(values) - 0.4)
    for (name, value), dashes in zip(comparison.references.items(), itertools.cycle(_DASHES)):
        axes.axhline(value, color="#555555", linestyle=dashes, linewidth=1)
        axes.annotate(name, (len(values) - 0.42, value), fontsize=8, va="bottom", ha="right")
    axes.set(title="test, one point per seed", ylabel=f"test {metric}")
    axes.grid(alpha=0.3)
    _scale(axes, metric, has_values=True)


def _scale(axes: "Axes", metric: str, *, has_values: bool) -> None:
    """Percent for accuracies, a logarithmic axis for perplexities."""
    if metric == "accuracy":
        axes.yaxis.set_major_formatter(_percent)
    if metric == "perplexity" and has_values:
        axes.set_yscale("log")


def _percent(value: float, _position: float) -> str:
    return f"{100 * value:.4g} %"
