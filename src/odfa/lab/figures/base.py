"""The contract of a figure of a comparison, and the one loop that finds and draws them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from odfa.errors import ConfigError
from odfa.lab.canvas import new_figure, save_figure
from odfa.lab.comparison import Comparison
from odfa.settings import Settings, named, shown
from odfa.settings.kinds import words_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAIN = "comparison"
"""Name of the figure that every comparison has."""
_WIDTH, _HEIGHT = 6.4, 4.2
"""Inches of a figure that does not choose its own size."""
_DPI = 150


@dataclass(frozen=True, kw_only=True)
class ComparisonFigure(Settings, ABC, room="odfa.lab.figures", group="odfa.figures"):
    """A figure that `odfa compare` draws into NAME.png beside its table.

    A class with `kind="NAME"` in a module of this room is found by itself; another package registers its class under
    NAME in the entry points `odfa.figures`.
    """

    def draws(self, comparison: Comparison) -> bool:
        """Whether the comparison holds what the figure shows; if not, no file is written."""
        return True

    @abstractmethod
    def draw(self, figure: "Figure", comparison: Comparison) -> None:
        """Draw into an empty figure of matplotlib; `figure.set_size_inches` gives it another size."""


def found() -> dict[str, ComparisonFigure]:
    """Name → figure, for every figure of this package and of those that are installed.

    Raises:
        ConfigError: what another package registered cannot be imported, is no figure, or has a name that no file has.
    """
    figures = {name: named(ComparisonFigure, name) for name in words_of(ComparisonFigure)}
    for name, figure in figures.items():
        if not isinstance(figure, ComparisonFigure):
            raise ConfigError(f"odfa.figures, {name}: expected a ComparisonFigure, got {shown(figure)}")
        if Path(name).name != name:
            raise ConfigError(f"odfa.figures: expected a name for a file, got {shown(name)}; rename the entry point")
    return figures


def draw_all(figures: Mapping[str, ComparisonFigure], comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Name → file, for every figure that this comparison has something for; each file is `folder`/NAME.png.

    Raises:
        MissingExtra: matplotlib is absent. RunFolderError: a file cannot be written.
    """
    written = {}
    for name, drawn in figures.items():
        if drawn.draws(comparison):
            figure = new_figure(_WIDTH, _HEIGHT)
            drawn.draw(figure, comparison)
            written[name] = folder / f"{name}.png"
            save_figure(figure, written[name], dpi=_DPI)
    return written
