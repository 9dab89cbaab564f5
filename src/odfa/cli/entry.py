"""`odfa`: parse the words, run one command, turn every foreseen failure into one line and an exit code."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any, NoReturn

from odfa.cli.align import ALIGN
from odfa.cli.command import Command, note
from odfa.cli.compare import COMPARE
from odfa.cli.env import ENV
from odfa.cli.recipes import RECIPES
from odfa.cli.train import TRAIN
from odfa.errors import ConfigError, DeviceError, NonFinite, OdfaError
from odfa.train import Interrupted

COMMANDS: tuple[Command, ...] = (RECIPES, TRAIN, COMPARE, ALIGN, ENV)
DONE, FAILED, REFUSED = 0, 1, 2


class _Parser(ArgumentParser):
    """Reports in one line what ArgumentParser reports in three."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 (done), 1 (the run failed or was stopped) or 2 (the user's words are off)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parse(words)
        outcome = arguments.command.execute(arguments)
        if arguments.json:
            print(json.dumps(outcome.json, allow_nan=False))
        else:
            outcome.show()
        sys.stdout.flush()
        return DONE
    except BrokenPipeError:
        # the reader (head, less) has left; nothing more can be said to it
        sys.stdout = None
        return FAILED
    except (OdfaError, KeyboardInterrupt, MemoryError) as error:
        return _report(error, as_json="--json" in words)


def _parse(words: list[str]) -> Namespace:
    arguments, left = _parser().parse_known_args(words)
    # argparse gives up on positionals that follow an option: `train NAME --run-dir DIR seed=1`
    settings = [word for word in left if "=" in word and not word.startswith("-")]
    if len(settings) != len(left) or (settings and not hasattr(arguments, "settings")):
        strange = next(word for word in left if word not in settings or not hasattr(arguments, "settings"))
        raise ConfigError(f"unknown argument {strange!r}; see odfa {arguments.command.name} --help")
    if settings:
        arguments.settings += settings
    return arguments


def _parser() -> ArgumentParser:
    parser = _Parser(prog="odfa", description="Train neural networks with light.", allow_abbrev=False)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.summary, description=command.summary, allow_abbrev=False)
        command.configure(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        sub.set_defaults(command=command)
    return parser


def _report(error: BaseException, *, as_json: bool) -> int:
    message, code = _explain(error)
    if as_json:
        failure: dict[str, Any] = {"status": "failed" if code == FAILED else "refused"}
        print(json.dumps({**failure, "error": type(error).__name__, "message": message}))
    note(f"odfa: {message}")
    return code


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, Interrupted):
        return f"stopped at step {error.step}; resume with odfa train --resume {error.run_dir}", FAILED
    if isinstance(error, KeyboardInterrupt):
        return "stopped before the first step; run the same command again", FAILED
    if isinstance(error, MemoryError):
        return "out of memory; see odfa train NAME --dry-run for what the run needs", FAILED
    message = " ".join(str(error).split())
    # Incompatible is a DeviceError too, but found before the first frame: the settings are off, not the run
    failed = isinstance(error, NonFinite | DeviceError) and not isinstance(error, ValueError)
    return message, FAILED if failed else REFUSED
