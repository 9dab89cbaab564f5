"""`odfa`: parse the arguments, run one command, turn every foreseen failure into one line and an exit code."""

import contextlib
import errno
import io
import json
import re
import signal
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence

from odfa import __version__
from odfa.cli.align import ALIGN
from odfa.cli.command import Command, Outcome, OutputError, note
from odfa.cli.compare import COMPARE
from odfa.cli.env import ENV
from odfa.cli.export import EXPORT
from odfa.cli.help import Help, Parser, chosen, explained
from odfa.cli.judge import JUDGE
from odfa.cli.opu import OPU
from odfa.cli.plan import PLAN
from odfa.cli.project import PROJECT
from odfa.cli.recipes import RECIPES
from odfa.cli.sample import SAMPLE
from odfa.cli.study import STUDY
from odfa.cli.train import TRAIN
from odfa.errors import CalibrationError, ConfigError, Incompatible, NonFinite, OdfaError, OpuError
from odfa.store import RunFolderLost
from odfa.store.folder import FULL
from odfa.train import Interrupted

COMMANDS: tuple[Command, ...] = (
    RECIPES,
    TRAIN,
    COMPARE,
    ALIGN,
    SAMPLE,
    JUDGE,
    EXPORT,
    OPU,
    PROJECT,
    PLAN,
    STUDY,
    ENV,
)
_ABOUT = Help(
    summary="Train neural networks with light.",
    example="odfa compare digits arms=bp,shallow,dfa,odfa   # each COMMAND has a --help",
)
_FLAG = re.compile(r"--[A-Za-z][\w.-]*", re.ASCII)
FAILED, REFUSED = 1, 2
STOPPED = 128 + signal.SIGINT
"""Exit code after a Ctrl-C that left nothing to resume; shells use the same."""
_MACHINE = (*FULL, errno.EIO)
"""Error numbers of a failing machine, rather than of arguments that do not hold."""


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, see `odfa.cli.main`."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without, say, "±" still gets the table
        warnings.showwarning = lambda message, *_where: note(f"odfa: warning: {message}")
        arguments = _parse(words)
        outcome: Outcome = arguments.command.execute(arguments)
        _print(outcome, as_json=as_json)
        return outcome.code
    except (Exception, KeyboardInterrupt) as error:
        code = _exit_code(error)
        if code is None:
            raise
        return _report(error, code, as_json=as_json)


def _print(outcome: Outcome, *, as_json: bool) -> None:
    """The result on standard output.

    Raises:
        OutputError: standard output does not take it.
    """
    if sys.stdout is None:  # closed by the caller
        return
    try:
        if as_json:
            print(json.dumps(outcome.json, allow_nan=False))
        else:
            outcome.show()
        sys.stdout.flush()
    except OSError as error:
        if isinstance(error, OdfaError):
            raise
        sys.stdout = None  # or the interpreter would try again, and complain, when it ends
        gone = isinstance(error, BrokenPipeError)  # the reader (head, less) has left
        raise OutputError("" if gone else f"cannot write the result: {error.strerror or error}") from error


def _parse(words: list[str]) -> Namespace:
    arguments: Namespace
    arguments, left = _parser().parse_known_args(words)
    # argparse gives up on positionals that follow an option: `train NAME --run-dir DIR seed=1`
    settings = [word for word in left if "=" in word and not word.startswith("-")]
    if len(settings) != len(left) or (settings and not hasattr(arguments, "settings")):
        strange = next(word for word in left if word not in settings or not hasattr(arguments, "settings"))
        spelt = _as_setting(strange, words) if hasattr(arguments, "settings") else None
        advice = "" if spelt is None else f"a setting is written {spelt}, without dashes; "
        raise ConfigError(f"unknown argument {strange!r}; {advice}see odfa {chosen(arguments)} --help")
    if settings:
        arguments.settings += settings
    return arguments


def _as_setting(flag: str, words: list[str]) -> str | None:
    """An option such as --seed 1 or --seed=1, as `key=value` spells it; None where it is none."""
    if not _FLAG.fullmatch(flag.partition("=")[0]):
        return None
    name, equals, value = flag.removeprefix("--").partition("=")
    behind = words[words.index(flag) + 1 :]
    if not equals:  # argparse may have taken the next word for an argument of the command, so `words` has it
        value = behind[0] if behind and not behind[0].startswith("--") else "VALUE"
    return f"{name.replace('-', '_')}={value}"


def _parser() -> Parser:
    parser = Parser(prog="odfa", allow_abbrev=False, description=_ABOUT.summary)
    parser.shown = _ABOUT
    parser.add_argument("--version", action="version", version=f"odfa {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.help.summary, allow_abbrev=False)
        command.configure(sub)
        explained(sub, command.help)
        sub.set_defaults(command=command)
    return parser


def _report(error: BaseException, code: int, *, as_json: bool) -> int:
    """One line on standard error, and one JSON object on standard output if asked for."""
    message = _explain(error)
    if not message:
        return code
    failure = {"status": "failed" if code == FAILED else "refused", "error": type(error).__name__, "message": message}
    with contextlib.suppress(OutputError):  # the exit code says it too
        if as_json and not isinstance(error, OutputError):
            _print(Outcome(json=failure, show=lambda: None), as_json=True)
    note(f"odfa: {message}")
    return code


def _exit_code(error: BaseException) -> int | None:
    """The exit code for a foreseen failure; None for another, whose traceback is then shown."""
    # both are OpuErrors, but found before the first frame: the settings do not fit, the OPU has not failed
    if isinstance(error, Incompatible | CalibrationError):
        return REFUSED
    if isinstance(error, Interrupted | NonFinite | OpuError | RunFolderLost | OutputError):
        return FAILED
    if _stopped(error):
        return STOPPED
    if isinstance(error, OdfaError | ImportError | UnicodeError | RecursionError):
        return REFUSED
    if isinstance(error, OSError):
        return FAILED if error.errno in _MACHINE else REFUSED
    return FAILED if _out_of_memory(error) else None


def _stopped(error: BaseException) -> bool:
    """Whether it is a Ctrl-C, also one that came during an import, which libraries turn into an ImportError."""
    cause = error.__cause__ or error.__context__
    if isinstance(error, ImportError) and cause is not None:
        return _stopped(cause)
    return isinstance(error, KeyboardInterrupt)


def _out_of_memory(error: BaseException) -> bool:
    # torch has no class of its own for this on the CPU; on accelerators each kind has its own words around these three
    cpu_says = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")
    torch_says = (*cpu_says, "out of memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in torch_says)
    )


def _explain(error: BaseException) -> str:
    if _out_of_memory(error):
        return "out of memory; see odfa train NAME --dry-run for what the run needs"
    if _stopped(error) and not isinstance(error, Interrupted):
        return "stopped; run the same command again"
    message = " ".join(str(error).split())
    if isinstance(error, OdfaError | Interrupted):
        return message
    if isinstance(error, ImportError):
        return f"a package does not load: {message}"
    if isinstance(error, UnicodeError):
        return f"expected text in UTF-8: {message}"
    if isinstance(error, RecursionError):
        return "what was given is nested too deeply to be read"
    if isinstance(error, OSError):
        advice = "free space" if error.errno in FULL else "see that it exists and may be used"
        return f"{error.filename or 'a file'}: {error.strerror or message}; {advice}"
    return message
