"""Tables for the terminal and for Markdown. Every table says which rule ran and what part of it is electronic."""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odfa.data import needs
from odfa.files import write_file
from odfa.lab.comparison import Comparison
from odfa.lab.destination import writing
from odfa.lab.wording import electronic_part

COLUMNS = ("arm", "rule", "{metric}", "gap closed", "learning rate", "train time", "light")
_PIPE_WIDTH = 160
_BETWEEN = 3
"""Blanks beside a column."""


def print_table(columns: list[str], rows: list[list[str]], *, title: str | None = None) -> None:
    """Draw a table on standard output; where it is too wide for its words, one row under the other.

    Raises:
        MissingExtra: rich is absent.
    """
    with needs("rich", "tables", otherwise="ask for --json"):
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    console, table = Console(highlight=False, width=width()), Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.show_header = any(columns)
    # a column is never narrower than its longest word, so that no word is broken
    words = [max(map(_longest, column)) for column in zip(columns, *rows, strict=True)]
    if title:
        console.print(escape("\n".join(lines_of(title))), soft_wrap=True)
    if sum(words) + _BETWEEN * len(words) > width():
        records = ["\n".join(_record(columns, row)) for row in rows]
        console.print(escape("\n\n".join(records)), soft_wrap=True)
        return
    for column, widest in zip(columns, words, strict=True):
        table.add_column(column, min_width=widest)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _longest(cell: str) -> int:
    return max(map(len, cell.split()), default=0)


def width() -> int:
    """Columns of the terminal; a pipe or a log has no width of its own and gets the room that tables need."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH


def lines_of(text: str, indent: int = 0) -> list[str]:
    """Lines of the terminal's width, broken between words only."""
    wrapper = textwrap.TextWrapper(width(), subsequent_indent=" " * indent, replace_whitespace=False)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return [piece for line in text.splitlines() for piece in wrapper.wrap(line) or [""]]


def _record(columns: list[str], row: list[str]) -> list[str]:
    """The first cell, under it the others with their columns' names."""
    head, *others = zip(columns, row, strict=True)
    return lines_of(head[1]) + [
        line for column, cell in others if cell for line in lines_of(f"  {column}: {cell}", indent=4)
    ]


def comparison_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a comparison, one row per arm."""
    figures = comparison.to_json()
    columns = [column.format(metric=f"test {comparison.metric['name']}") for column in COLUMNS]
    rows = [_cells(figures, arm) for arm in figures["summary"]]
    metric = comparison.metric["name"]
    return columns, rows + [
        [name, "no network", _spread(value, None, metric), *["–"] * (len(columns) - 3)]
        for name, value in comparison.references.items()
    ]


def electronic_parts(comparison: Comparison) -> dict[str, str]:
    """What of the learning is electronic, per arm."""
    return {trial.arm: electronic_part(trial.config) for trial in comparison.trials}


def title_of(comparison: Comparison) -> str:
    """Recipe, number of seeds, direction of the metric."""
    seeds = len({trial.config.seed for trial in comparison.trials})
    spread = "one seed" if seeds == 1 else f"{seeds} seeds, mean ± standard deviation"
    return f"{comparison.recipe}: {comparison.metric['name']} ({comparison.metric['better']} is better), {spread}"


def footnotes(comparison: Comparison) -> list[str]:
    """How learning rates were chosen, and a warning where the grid may have been too small."""
    tries = max(len(tried) for tried in comparison.tries.values())
    if tries == 1:
        return ["Learning rates were not tuned (tries=1)."]
    notes = [f"Learning rates: the best of {tries} on validation data, for each arm."]
    edges = any(rates["at_edge"] for rates in comparison.to_json()["learning_rates"].values())
    return notes + (["* The best of the grid is its edge: a larger tries= looks further."] if edges else [])


def write_markdown(comparison: Comparison, path: Path) -> None:
    """The same table as a Markdown file.

    Raises:
        RunFolderError: the file cannot be written.
    """
    columns, rows = comparison_cells(comparison)
    columns.append("electronic")
    parts = [*electronic_parts(comparison).values(), *["–"] * len(comparison.references)]
    for row, part in zip(rows, parts, strict=True):
        row.append(part)
    lines = [f"# {title_of(comparison)}", "", _line(columns), _line(["---"] * len(columns)), *map(_line, rows), ""]
    lines += ["\n".join(footnotes(comparison)), ""]
    with writing(path):
        write_file(path, "\n".join(lines).encode())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cells(comparison: dict[str, Any], arm: str) -> list[str]:
    rows = [row for row in comparison["rows"] if row["arm"] == arm]
    figures, share = comparison["summary"][arm], comparison["gap_closed"].get(arm)
    rate = comparison["learning_rates"][arm]
    frames = sum(row["light"]["frames"] for row in rows) / len(rows)
    light_s, joules = (sum(row["light"][key] for row in rows) / len(rows) for key in ("seconds", "joules"))
    return [
        arm,
        rows[0]["rule"],
        _spread(figures["mean"], figures["std"], comparison["metric"]["name"]),
        "–" if share is None else f"{share + 0.0:.1%}",  # -0.0 is shown as 0.0
        f"{rate['chosen']:g}" + (" *" if rate["at_edge"] else ""),
        f"{sum(row['seconds'] for row in rows) / len(rows):.1f} s",
        f"{frames:,.0f} frames, {light_s:,.1f} s, {joules:,.0f} J" if frames else "none",
    ]


def _spread(mean: float, std: float | None, metric: str) -> str:
    unit, digits = {"accuracy": ("%", 2), "perplexity": ("", 2)}.get(metric, ("", 4))
    scale = 100 if unit else 1
    return f"{mean * scale:.{digits}f}{unit}" + ("" if std is None else f" ± {std * scale:.{digits}f}")
