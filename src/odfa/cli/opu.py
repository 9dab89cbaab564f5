"""`odfa opu`: list OPUs; check one against what its class states; calibrate it; draw what its camera sees."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from odfa.cli.command import Command, Outcome, note, place, print_table, say
from odfa.cli.help import CUT, Help, add_actions, add_settings, listing, parts_of
from odfa.cli.quantities import label, quantity
from odfa.errors import ConfigError
from odfa.settings import apply


def _listed(action: str, words: list[str]) -> str:
    """Every setting of the action, for the OPU that is named or else the twin."""
    from odfa.cli.opu_words import CalibrateWords, CheckWords, ShowWords
    from odfa.opu import TwinSettings, opu_settings

    name, settings = parts_of(words)
    opu = TwinSettings() if name is None else opu_settings(name)
    made = {"check": CheckWords, "calibrate": CalibrateWords, "show": ShowWords}[action](opu=opu)
    return f"settings ({CUT}):\n\n{listing(apply(made, settings))}"


_ACTIONS = {
    "list": Help(summary="every OPU that can be opened by name", example="odfa opu list"),
    "check": Help(
        summary="test whether an OPU does what it states; the exit code is 1 if it does not",
        example="odfa opu check opu-2021 demodulator=offaxis",
        more=partial(_listed, "check"),
    ),
    "calibrate": Help(
        summary="measure an OPU and keep the record, for calibration= of a run",
        example="odfa opu calibrate opu-2021 inputs=10 modes=512 out=calibrations/opu",
        more=partial(_listed, "calibrate"),
    ),
    "show": Help(
        summary="pictures of what an OPU's camera sees",
        example="odfa opu show twin out=pictures",
        more=partial(_listed, "show"),
    ),
}


def _configure(parser: ArgumentParser) -> None:
    named = {name: (shown, _configure_named) for name, shown in _ACTIONS.items() if name != "list"}
    add_actions(parser, {"list": (_ACTIONS["list"], lambda _parser: None), **named})


def _configure_named(parser: ArgumentParser) -> None:
    parser.add_argument("opu", metavar="NAME", nargs="?", help="an OPU that `odfa opu list` shows")
    add_settings(parser)


def _execute(arguments: Namespace) -> Outcome:
    if arguments.action == "list":
        return _list()
    name, settings = arguments.opu, list(arguments.settings)
    if name is None or "=" in name:
        raise ConfigError(f"odfa opu {arguments.action} expects the name of an OPU; see odfa opu list")
    return _ACTS[arguments.action](name, settings)


def _list() -> Outcome:
    from odfa.opu import list_opus

    entries = list_opus()
    rows = [(entry.name, entry.source, entry.problem or entry.summary) for entry in entries]
    opus = [asdict(entry) for entry in entries]
    return Outcome(json={"opus": opus}, show=lambda: print_table(("opu", "from", "what it is"), rows))


def _check(name: str, settings: list[str]) -> Outcome:
    from odfa.cli.opu_words import CheckWords
    from odfa.opu import opu_settings
    from odfa.project.conformance import check

    words = apply(CheckWords(opu=opu_settings(name)), settings)
    chosen = None if words.demodulator is None else words.demodulator.build()
    note(f"checking {name} …")
    report = check(words.opu.build(), demodulator=chosen, num_inputs=words.inputs, num_modes=words.modes)

    def show() -> None:
        rows = [(c.name, "pass" if c.passed else "FAIL", c.value, c.expected) for c in report.checks]
        print_table(("check", "", "value", "expected"), rows, title=f"{report.opu_id} · {report.demodulator}")
        for failed in (c for c in report.checks if not c.passed):
            say(f"{failed.name}: {failed.reason}")
        print("pass" if report.passed else "fail")

    return Outcome(json=report.to_json(), show=show, code=0 if report.passed else 1)


def _calibrate(name: str, settings: list[str]) -> Outcome:
    from odfa.cli.opu_words import CalibrateWords
    from odfa.lab.destination import check_folder
    from odfa.opu import opu_settings
    from odfa.project.calibrating import calibrate

    words = apply(CalibrateWords(opu=opu_settings(name)), settings)
    folder = check_folder(words.out or place(f"calibrations/{name}"), "out")
    if folder.exists():
        raise ConfigError(f"out: {folder} exists already; name another folder")
    note(f"calibrating {name} …")
    with words.opu.build() as opu:
        found = calibrate(
            opu,
            num_inputs=words.inputs,
            num_modes=words.modes,
            demodulator=None if words.demodulator is None else words.demodulator.build(),
            matrix=words.matrix,
        )
    path = found.save(folder)
    figures = found.figures()

    def show() -> None:
        rows = [(label(key), quantity(key, value)) for key, value in figures.items()]
        print_table(("measured", "value"), rows, title=f"{name} → {path}")
        print(f"calibration {found.id}")

    return Outcome(json={"id": found.id, "path": str(path), **figures}, show=show)


def _show(name: str, settings: list[str]) -> Outcome:
    from odfa.cli.opu_words import ShowWords
    from odfa.lab.destination import check_folder
    from odfa.lab.optics import draw_all
    from odfa.opu import opu_settings

    words = apply(ShowWords(opu=opu_settings(name)), settings)
    folder = check_folder(words.out or place(f"pictures/{name}"), "out")
    note(f"drawing what the camera of {name} sees …")
    with words.opu.build() as opu:
        opu.check_stated()
        figures = draw_all(opu, folder)
    return Outcome(json={"figures": [str(path) for path in figures]}, show=lambda: say("\n".join(map(str, figures))))


_ACTS: dict[str, Callable[[str, list[str]], Outcome]] = {"check": _check, "calibrate": _calibrate, "show": _show}


OPU = Command(
    name="opu",
    help=Help(
        summary="OPUs: list, check, calibrate, show",
        example="odfa opu check opu-2021   # each ACTION has a --help",
    ),
    configure=_configure,
    execute=_execute,
)
