"""`odfa sample`: what a trained model makes, in the way that its task offers."""

import re
import textwrap
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from odfa.cli.command import Command, Outcome, note, place
from odfa.cli.help import Help, add_settings, listing
from odfa.errors import ConfigError
from odfa.settings import apply

_SETTING = re.compile(r"[\w.]+=", re.ASCII)
"""How a setting begins; a run folder whose name begins so is written ./NAME."""


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders of one task")
    add_settings(parser)


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.samples import settings_of

    runs, words = _parted([*arguments.runs, *arguments.settings])
    if not runs:
        raise ConfigError(f"expected a run folder, got {' '.join(words)}; see odfa sample --help")
    settings = apply(settings_of(runs), words)
    note(f"sampling from {', '.join(map(str, runs))} …")
    made = settings.make(runs)
    return Outcome(json=made.json, show=lambda: print(made.text))


def _parted(words: list[str]) -> tuple[list[Path], list[str]]:
    """Run folders and settings; argparse cannot tell them apart."""
    runs = [_run_dir(word) for word in words if not _SETTING.match(word)]
    return runs, [word for word in words if _SETTING.match(word)]


def _run_dir(word: str) -> Path:
    try:
        return place(word)
    except ArgumentTypeError as error:  # argparse does not see these words, so its own refusal is not raised
        raise ConfigError(f"RUN: {error}") from error


def _of_runs(words: list[str]) -> str:
    """Every setting of the way in which the runs among the words are sampled; without runs, of every way."""
    from odfa.lab.samples import settings_of, ways

    runs, given = _parted([word for word in words if not word.startswith("-")])
    if runs:
        return f"settings of {runs[0]}:\n{listing(apply(settings_of(runs), given))}"
    told = "settings by kind of run (those of one run: odfa sample RUN --help):"
    kinds = [f"{word}:\n{listing(settings)}" for word, settings in ways().items()]
    return "\n\n".join([textwrap.fill(told, 80), *kinds])


SAMPLE = Command(
    name="sample",
    help=Help(
        summary="what a trained model writes, draws or projects",
        example='odfa sample runs/dialogue_tiny-odfa-seed0 prompt="Hi, how are you?" count=2',
        more=_of_runs,
    ),
    configure=_configure,
    execute=_execute,
)
