"""Figure of losses over compute, drawn from the values that `odfa study learning --json` prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from odfa.lab.canvas import new_figure, open_frame, save_figure
from odfa.lab.figures.panels import Style, draw_legend

_PLACES = 100
"""Points of a line."""


def draw_learning(found: Mapping[str, Any], labels: Mapping[str, str], styles: Mapping[str, Style], path: Path) -> None:
    """Validation loss against compute, both logarithmic: a ring for each run, a line for each arm's power law.

    Args:
        found: `points` (arm, compute and loss of each run) and `fits` (arm → floor, scale, exponent).
        labels: of the arms, in the legend.
        styles: of the arms, as `odfa.lab.figures.panels.styles_of` gives them.
        path: of the figure.

    Raises:
        MissingExtra: matplotlib is absent. RunFolderError: the file cannot be written.
    """
    figure = new_figure(7.0, 5.0)
    axes = figure.subplots()
    for arm, law in found["fits"].items():
        colour, dashes = styles[arm]
        runs = [point for point in found["points"] if point["arm"] == arm]
        compute = [point["compute"] for point in runs]
        axes.plot(compute, [point["loss"] for point in runs], "o", color=colour, markerfacecolor="white", markersize=6)
        line = np.geomspace(min(compute), max(compute), _PLACES)
        falls = 0.0 if law["exponent"] is None else law["scale"] * line ** -law["exponent"]
        axes.plot(line, law["floor"] + falls + 0 * line, color=colour, linestyle=dashes, linewidth=2, label=labels[arm])
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="multiply-adds of backpropagation at that size and those tokens",
        ylabel="validation loss, nats a token",
        title=f"{found['recipe']}: loss over compute, {found['axis']} growing",
    )
    axes.yaxis.set_major_formatter(_plain)
    axes.yaxis.set_minor_formatter(_plain)
    axes.grid(alpha=0.3, which="both")
    open_frame(axes)
    draw_legend(figure, axes)
    save_figure(figure, path, dpi=150)


def _plain(value: float, _position: float) -> str:
    return f"{value:.3g}"
