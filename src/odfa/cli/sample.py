"""`odfa sample`: what a trained model makes, in the way that its task offers."""

import textwrap
from argparse import ArgumentParser, Namespace

from odfa.cli.command import Command, Outcome, note
from odfa.cli.help import Help, listing
from odfa.cli.runs import add_runs, parted, some_parted
from odfa.settings import apply


def _configure(parser: ArgumentParser) -> None:
    add_runs(parser, "run folders of one task")


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.samples import settings_of

    runs, words = some_parted([*arguments.runs, *arguments.settings], "sample")
    settings = apply(settings_of(runs), words)
    note(f"sampling from {', '.join(map(str, runs))} …")
    made = settings.sampled(runs)
    return Outcome(json=made.json, show=lambda: print(made.text))


def _of_runs(words: list[str]) -> str:
    """Every setting of the way in which the runs among the words are sampled; without runs, of every way."""
    from odfa.lab.samples import settings_of, ways

    runs, given = parted([word for word in words if not word.startswith("-")])
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
