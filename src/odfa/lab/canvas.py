"""Figures of matplotlib: made without a window, framed alike, written whole or not at all."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from odfa.data import needs
from odfa.files import write_file
from odfa.lab.destination import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of `width` times `height` inches that is drawn without a window.

    Raises:
        MissingExtra: matplotlib is absent.
    """
    with needs("matplotlib", "figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def open_frame(*panels: "Axes") -> None:
    """Leave out the lines above and to the right of these panels."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: "Figure", path: Path, *, dpi: int) -> None:
    """Draw a figure into `path`, `dpi` pixels an inch; folders are made as needed.

    Raises:
        RunFolderError: the file cannot be written.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format=path.suffix.removeprefix("."))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, drawn.getvalue())
