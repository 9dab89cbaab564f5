"""Tables for the terminal and for Markdown. Every table says which rule ran and what part of it is electronic."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odfa.data import needs
from odfa.files import write_file
from odfa.report.comparison import Comparison
from odfa.report.methods import electronic_part
from odfa.train.folder import folder_errors

COLUMNS = ("method", "rule", "{metric}", "gap closed", "learning rate", "train time", "light")
_PIPE_WIDTH = 160


def print_table(columns: list[str], rows: list[list[str]], *, title: str | None = None) -> None:
    """Draw a table on standard output.

    Raises:
        MissingExtra: rich is absent.
    """
    with needs("rich", "tables", otherwise="ask for --json"):
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    # a pipe or a log has no width of its own: give the table the room it needs
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    if title:
        console.print(escape(title), soft_wrap=True)
    console.print(table)


def comparison_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a comparison, one row per method."""
    figures = comparison.to_json()
    columns = [column.format(metric=f"test {comparison.metric['name']}") for column in COLUMNS]
    rows = [_cells(figures, method) for method in figures["summary"]]
    metric = comparison.metric["name"]
    return columns, rows + [
        [name, "no network", _spread(value, None, metric), *["–"] * (len(columns) - 3)]
        for name, value in comparison.references.items()
    ]


def electronic_parts(comparison: Comparison) -> dict[str, str]:
    """What of the learning is electronic, per method."""
    return {trial.method: electronic_part(trial.config) for trial in comparison.trials}


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
    notes = [f"Learning rates: the best of {tries} on validation data, for each method."]
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
    with folder_errors(path):
        write_file(path, "\n".join(lines).encode())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(comparison: dict[str, Any], method: str) -> list[str]:
    rows = [row for row in comparison["rows"] if row["method"] == method]
    figures, share = comparison["summary"][method], comparison["gap_closed"].get(method)
    rate = comparison["learning_rates"][method]
    frames = sum(row["light"]["frames"] for row in rows) / len(rows)
    light_s, joules = (sum(row["light"][key] for row in rows) / len(rows) for key in ("seconds", "joules"))
    return [
        method,
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
