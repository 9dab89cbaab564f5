"""Figures of the scaling study, drawn from the values that `odfa study --json` prints."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odfa.lab.canvas import new_figure, open_frame, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

_STYLES = {
    "bp": ("#000000", "-"),
    "bp+checkpointing": ("#777777", "-"),
    "bp+offloading": ("#000000", "--"),
    "bp+checkpointing+offloading": ("#777777", "--"),
    "dfa": ("#0072B2", "-"),
    "dfa+offloading": ("#0072B2", "--"),
    "odfa": ("#D55E00", "-"),
    "odfa+streaming": ("#E69F00", "-"),
    "odfa+offloading": ("#D55E00", "--"),
    "shallow": ("#999999", ":"),
}
_NOT_FITTING = 0.25
"""Opacity of the part of a line where the model does not fit."""


def draw_curves(points: Sequence[Row], quantity: str, label: str, path: Path) -> None:
    """`quantity` against parameters, a panel for each family, a line for each method; pale where it does not fit.

    Raises:
        MissingExtra: matplotlib is absent. RunFolderError: the file cannot be written.
    """
    families = list(dict.fromkeys(row["family"] for row in points))
    figure, panels = _figure(len(families), width=5.0)
    for axes, family in zip(panels, families, strict=True):
        for method in dict.fromkeys(row["method"] for row in points):
            line = [
                row
                for row in points
                if (row["family"], row["method"]) == (family, method) and row.get(quantity) is not None
            ]
            colour, dashes = _STYLES[method]
            sizes, values = [row["parameters"] for row in line], [row[quantity] for row in line]
            # the pale line goes through all sizes, the full one is broken where the model does not fit
            axes.plot(sizes, values, color=colour, linestyle=dashes, alpha=_NOT_FITTING)
            held = [value if row["fits"] else float("nan") for row, value in zip(line, values, strict=True)]
            axes.plot(sizes, held, color=colour, linestyle=dashes, linewidth=2, label=method)
        axes.set(xscale="log", yscale="log", xlabel="parameters", title=family)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(label)
    first = points[0]
    figure.suptitle(f"{first['processor']}, one error vector per {first['vectors']}; pale: does not fit", fontsize=10)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=8
    )
    _save(figure, path)


def draw_checks(checks: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Predicted over measured, a panel for each quantity (`{"s": steps, "bytes": peaks}`), with the bands aimed at.

    Raises:
        MissingExtra: matplotlib is absent. RunFolderError: the file cannot be written.
    """
    drawn = {unit: rows for unit, rows in checks.items() if rows}
    figure, panels = _figure(len(drawn), width=5.5)
    for axes, (unit, rows) in zip(panels, drawn.items(), strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [row for row in rows if row["method"] == method]
            measured = [row[f"measured_{unit}"] for row in mine]
            axes.plot(
                measured, [1 + row["off"] for row in mine], "o", color=_STYLES[method][0], label=method, alpha=0.8
            )
        inner, outer = (0.15, 0.30) if unit == "s" else (0.10, 0.10)
        axes.axhspan(1 - outer, 1 + outer, color="#0072B2", alpha=0.06)
        axes.axhspan(1 - inner, 1 + inner, color="#0072B2", alpha=0.10)
        axes.axhline(1, color="#777777", linewidth=1)
        axes.set(xscale="log", xlabel=f"measured, {unit}", ylim=(0.5, 1.5))
        axes.set_title("step time" if unit == "s" else "peak memory")
    panels[0].set_ylabel("predicted over measured")
    panels[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_sharing(sweeps: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Throughput over the closed form, and tail latency, against the number of workers that share an OPU.

    Raises:
        MissingExtra: matplotlib is absent. RunFolderError: the file cannot be written.
    """
    figure, (left, right) = _figure(2, width=5.0)
    for place, (name, rows) in enumerate(sweeps.items()):
        colour = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7")[place % 5]
        workers = [row["workers"] for row in rows]
        left.plot(workers, [row["ratio"] for row in rows], "o-", color=colour, label=name)
        right.plot(workers, [row["latency_p99_s"] for row in rows], "o-", color=colour, label=name)
    left.axhspan(0.95, 1.05, color="#0072B2", alpha=0.10)
    left.set(xscale="log", xlabel="workers", ylabel="simulated over closed form", title="steps per second")
    right.set(
        xscale="log", yscale="log", xlabel="workers", ylabel="seconds", title="errors sent → projected, 99 of 100"
    )
    left.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _figure(panels: int, *, width: float) -> tuple["Figure", list["Axes"]]:
    figure = new_figure(width * panels, 4.4)
    axes: Iterable[Axes] = figure.subplots(1, panels, squeeze=False)[0]
    drawn = list(axes)
    open_frame(*drawn)
    return figure, drawn


def _save(figure: "Figure", path: Path) -> None:
    save_figure(figure, path, dpi=150)
