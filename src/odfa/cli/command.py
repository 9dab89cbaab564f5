"""The two classes that every subcommand is made of, and the functions that several subcommands use."""

import contextlib
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odfa.cli.help import Help
from odfa.errors import OdfaError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a command: an object that `--json` prints, a function that prints tables of it, the exit code."""

    json: dict[str, Any]
    show: Callable[[], None]
    code: int = 0


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand of `odfa`: `configure` adds its arguments to its parser, `execute` runs it on them."""

    name: str
    help: Help
    configure: Callable[[ArgumentParser], None]
    execute: Callable[[Namespace], Outcome]


class OutputError(OdfaError):
    """Standard output does not take the result."""


def note(message: str) -> None:
    """Print one line of progress on standard error; standard output is for results only."""
    if sys.stderr is not None:  # without one, print would write to standard output
        with contextlib.suppress(OSError):  # standard error is closed: the command goes on
            print(message, file=sys.stderr, flush=True)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, title: str | None = None) -> None:
    """Print a table on standard output; cells are shown as `str` gives them, so callers format their numbers."""
    from odfa.lab.table import print_table as draw

    draw(list(columns), [[str(cell) for cell in row] for row in rows], title=title)


def say(text: str, *, indent: int = 0) -> None:
    """Print text on standard output; lines wider than the terminal are broken, and what follows is indented."""
    from odfa.lab.table import lines_of

    print("\n".join(lines_of(text, indent)))


def place(text: str) -> Path:
    """The path that an argument of a command spells.

    Raises:
        ArgumentTypeError: it is empty or blank, or holds a null character, which no path can.
    """
    if not text.strip() or "\0" in text:
        raise ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)
