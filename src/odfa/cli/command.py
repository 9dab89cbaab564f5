"""What every subcommand is made of, and the few things that they share."""

import contextlib
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odfa.cli.help import Help
from odfa.errors import ConfigError, OdfaError
from odfa.settings import shown


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


def take(settings: list[str], key: str) -> tuple[str | None, list[str]]:
    """Remove `key=value` from `settings`; the value (the last one given, None if absent) and the rest."""
    mine = [setting.partition("=")[2] for setting in settings if setting.partition("=")[0] == key]
    rest = [setting for setting in settings if setting.partition("=")[0] != key]
    return (mine[-1] if mine else None), rest


def positive(key: str, text: str | None, default: int, *, most: int) -> int:
    """A count given as text, from 1 to `most`.

    Raises:
        ConfigError: not such an integer.
    """
    if text is None:
        return default
    spelled = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not spelled or not 0 < int(text) <= most:
        raise ConfigError(f"{key}: expected a positive integer up to {most:,}, got {shown(text)}")
    return int(text)


def place(text: str) -> Path:
    """A path among the words of a command.

    Raises:
        ArgumentTypeError: there is nothing in it, or what no path can hold.
    """
    if not text.strip() or "\0" in text:
        raise ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)


def place_of(key: str, text: str | None, default: Path | str) -> Path:
    """A path given as `key=text`.

    Raises:
        ConfigError: there is nothing in it.
    """
    try:
        return Path(default) if text is None else place(text)
    except ArgumentTypeError as error:
        raise ConfigError(f"{key}: {error}") from error
