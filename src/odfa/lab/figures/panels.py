"""Panels that figures of a comparison are put together from; a panel draws into axes that it is given."""

import colorsys
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from odfa.arms import parted
from odfa.lab.comparison import Comparison
from odfa.project.base import Dashes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = tuple[str, Dashes]
"""Colour and dashes of a line, in matplotlib's words."""

_MANY, _LETTERS = 5, 45
"""Arms up to which their names stand side by side, and letters that have room in a line of these."""
_LETTER, _KEY = 0.085, 0.6
"""Inches of a letter of a legend, and of the line beside a name."""
_SLANT, _SHORT = 35, 16
"""Degrees of names that stand aslant, and letters for which figures have room below."""
_DASHES = ("-", "--", ":", "-.")
_DARK, _LIGHT = 0.25, 0.75
"""Least and greatest lightness of arms that differ in nothing else."""


def styles_of(comparison: Comparison) -> dict[str, Style]:
    """Arm → colour of its rule, dashes of its projection; of arms that have both in common, the first has the colour
    itself and the others have it lighter or darker."""
    alike: dict[Style, list[str]] = {}
    for arm, config in {trial.arm: trial.config for trial in comparison.trials}.items():
        dashes = "-" if config.projection is None else config.projection.dashes
        alike.setdefault((config.rule.colour, dashes), []).append(arm)
    found = {
        arm: (shade, dashes)
        for (colour, dashes), arms in alike.items()
        for arm, shade in zip(arms, _shades(colour, len(arms)), strict=True)
    }
    return {arm: found[arm] for arm in comparison.values()}


def _shades(colour: str, count: int) -> list[str]:
    """A colour, then others of its hue whose lightness keeps a distance from it and from each other."""
    if count == 1:
        return [colour]
    from matplotlib.colors import to_hex, to_rgb

    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    levels = [_DARK + (_LIGHT - _DARK) * step / (count - 1) for step in range(count)]
    levels.remove(min(levels, key=lambda level: abs(level - lightness)))  # the colour itself stands there
    return [colour, *(to_hex(colorsys.hls_to_rgb(hue, level, saturation)) for level in levels)]


def draw_legend(figure: "Figure", axes: "Axes") -> None:
    """The names of the lines of one panel below the figure, in as many columns as find room."""
    handles, labels = axes.get_legend_handles_labels()
    widest = _KEY + _LETTER * max(map(len, labels), default=0)
    columns = max(1, min(len(labels), int(figure.get_figwidth() / widest)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


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
    many = len(values) > _MANY or _crowded(list(values))  # names side by side would run into each other
    names = [arm if many else "\n".join(_lines(arm)) for arm in values]
    axes.set_xticks(range(len(values)), names, rotation=_SLANT if many else 0, ha="right" if many else "center")
    axes.set_xlim(-0.6, len(values) - 0.4)
    for (name, value), dashes in zip(comparison.references.items(), itertools.cycle(_DASHES)):
        axes.axhline(value, color="#555555", linestyle=dashes, linewidth=1)
        axes.annotate(name, (len(values) - 0.42, value), fontsize=8, va="bottom", ha="right")
    axes.set(title="test, one point per seed", ylabel=f"test {metric}")
    axes.grid(alpha=0.3)
    _scale(axes, metric, has_values=True)


def height_of(comparison: Comparison, usual: float) -> float:
    """Inches of a figure whose panels keep their height where long names stand aslant below `draw_values`."""
    longest = max(map(len, comparison.values()))
    return usual + _LETTER * math.sin(math.radians(_SLANT)) * max(0, longest - _SHORT)


def _lines(arm: str) -> list[str]:
    """The arm, its rule and each of its settings."""
    name, own = parted(arm)
    return [*name.split(":"), *(f"+{setting}" for setting in own)]


def _crowded(arms: list[str]) -> bool:
    """Whether two neighbours are wider together than their places, in letters."""
    widths = [max(map(len, _lines(arm))) for arm in arms]
    return any(one + other > 2 * _LETTERS / len(arms) for one, other in itertools.pairwise(widths))


def _scale(axes: "Axes", metric: str, *, has_values: bool) -> None:
    """Percent for accuracies, a logarithmic axis for perplexities."""
    if metric == "accuracy":
        axes.yaxis.set_major_formatter(_percent)
    if metric == "perplexity" and has_values:
        axes.set_yscale("log")


def _percent(value: float, _position: float) -> str:
    return f"{100 * value:.4g} %"
