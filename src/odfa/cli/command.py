"""What every subcommand is made of, and the few things that they share."""

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
    """What a command gives: one JSON object for machines, `show` prints it for people, and the exit code."""

    json: dict[str, Any]
    show: Callable[[], None]
    code: int = 0


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand of `odfa`: its name and help, its words, and what it does."""

    name: str
    help: Help
    configure: Callable[[ArgumentParser], None]
    execute: Callable[[Namespace], Outcome]


class OutputError(OdfaError):
    """Standard output does not take the result."""


def note(message: str) -> None:
    """One line for the person at the terminal, on standard error: standard output carries results only."""
    if sys.stderr is not None:  # without one, print would write to standard output
        with contextlib.suppress(OSError):  # nobody listens: no reason to stop
            print(message, file=sys.stderr, flush=True)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, title: str | None = None) -> None:
    """A table on standard output; columns of numbers are the caller's business to format."""
    from odfa.lab.table import print_table as draw

    draw(list(columns), [[str(cell) for cell in row] for row in rows], title=title)


def say(text: str, *, indent: int = 0) -> None:
    """Lines on standard output, broken between words where the terminal ends; what follows a break is indented."""
    from odfa.lab.table import lines_of

    print("\n".join(lines_of(text, indent)))


def place(text: str) -> Path:
    """A path among the words of a command.

    Raises:
        ArgumentTypeError: there is nothing in it, or what no path can hold.
    """
    if not text.strip() or "\0" in text:
        raise ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)
