"""`odfa export`: writes a run's model as a folder that transformers loads."""

from argparse import ArgumentParser, Namespace

from odfa.cli.command import Command, Outcome, note, place, say
from odfa.cli.help import Help


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=place, help="a run folder of a language model")
    parser.add_argument("folder", metavar="FOLDER", type=place, help="the folder to make")


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.exports import export

    note(f"exporting {arguments.run} …")
    result = export(arguments.run, arguments.folder)
    return Outcome(json=result, show=lambda: say(f"{result['folder']}: {', '.join(result['files'])}"))


EXPORT = Command(
    name="export",
    help=Help(
        summary="a trained model as a folder for transformers",
        example="odfa export runs/dialogue_gpt-bp-seed0 exported",
    ),
    configure=_configure,
    execute=_execute,
)
