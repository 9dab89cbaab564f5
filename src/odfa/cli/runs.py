"""Run folders and settings among the words of a command; argparse cannot tell them apart."""

import re
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

from odfa.cli.command import place
from odfa.cli.help import add_settings
from odfa.errors import ConfigError

_SETTING = re.compile(r"[\w.]+=", re.ASCII)
"""How a setting begins; a run folder whose name begins so is written ./NAME."""


def add_runs(parser: ArgumentParser, what: str) -> None:
    """One run folder or more, then key=value."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help=what)
    add_settings(parser)


def parted(words: list[str]) -> tuple[list[Path], list[str]]:
    """Run folders, and settings.

    Raises:
        ConfigError: a word that is neither.
    """
    runs = [_run_dir(word) for word in words if not _SETTING.match(word)]
    return runs, [word for word in words if _SETTING.match(word)]


def some_parted(words: list[str], command: str) -> tuple[list[Path], list[str]]:
    """As `parted`, where there is a run folder.

    Raises:
        ConfigError: there is none, or a word that is neither.
    """
    runs, settings = parted(words)
    if not runs:
        raise ConfigError(f"expected a run folder, got {' '.join(words)}; see odfa {command} --help")
    return runs, settings


def _run_dir(word: str) -> Path:
    try:
        return place(word)
    except ArgumentTypeError as error:  # argparse does not see these words, so its own refusal is not raised
        raise ConfigError(f"RUN: {error}") from error
