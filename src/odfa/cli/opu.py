"""`odfa opu`: which OPUs there are, whether one keeps its promises, what it measures, what it looks like."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from odfa.cli.command import Command, Outcome, note, place_of, positive, print_table, say, take
from odfa.cli.help import Help, add_actions, add_settings
from odfa.cli.quantity import label, quantity
from odfa.errors import ConfigError

_MOST = 2**31
"""Inputs and modes that anyone could ask for; the OPU says how many it has."""
_COMMON = {
    "inputs=N": "width of the errors; as many as the check, or ten, where nothing is said",
    "modes=N": "optical modes that are read, two real outputs each",
    "demodulator=phase": "how counts become a field: phase, phase3, offaxis or anchor; the OPU's own where not given",
}
_ACTIONS = {
    "list": Help(summary="every OPU that can be opened by name", example="odfa opu list"),
    "check": Help(
        summary="whether an OPU keeps its promises, test by test; 1 is returned if it does not",
        example="odfa opu check opu-2021 demodulator=offaxis",
        settings=_COMMON,
    ),
    "calibrate": Help(
        summary="measure an OPU and keep the record, for calibration= of a run",
        example="odfa opu calibrate opu-2021 inputs=10 modes=512 out=calibrations/opu",
        settings={
            **_COMMON,
            "matrix=none": "measure the matrix too: hadamard or one_hot",
            "out=calibrations/NAME": "folder to make",
        },
    ),
    "show": Help(
        summary="pictures of what an OPU's camera sees",
        example="odfa opu show twin out=pictures",
        settings={"out=pictures/NAME": "folder of the pictures"},
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
    from odfa.opu import open_opu
    from odfa.project.conformance import check

    (demodulator, inputs, modes), rest = _common(settings)
    _refuse(rest)
    note(f"checking {name} …")
    report = check(open_opu(name), demodulator=demodulator, num_inputs=inputs, num_modes=modes)

    def show() -> None:
        rows = [(c.name, "pass" if c.passed else "FAIL", c.value, c.expected) for c in report.checks]
        print_table(("check", "", "value", "expected"), rows, title=f"{report.opu_id} · {report.demodulator}")
        for failed in (c for c in report.checks if not c.passed):
            say(f"{failed.name}: {failed.reason}")
        print("pass" if report.passed else "fail")

    return Outcome(json=report.to_json(), show=show, code=0 if report.passed else 1)


def _calibrate(name: str, settings: list[str]) -> Outcome:
    from odfa.opu import open_opu
    from odfa.project.calibrating import calibrate
    from odfa.report.destination import check_folder

    (demodulator, inputs, modes), rest = _common(settings)
    matrix, rest = take(rest, "matrix")
    out, rest = take(rest, "out")
    _refuse(rest)
    if matrix not in (None, "none", "hadamard", "one_hot"):
        raise ConfigError(f"matrix: expected hadamard, one_hot or none, got {matrix!r}")
    folder = check_folder(place_of("out", out, f"calibrations/{name}"), "out")
    if folder.exists():
        raise ConfigError(f"out: {folder} exists already; name another folder")
    note(f"calibrating {name} …")
    with open_opu(name) as opu:
        found = calibrate(
            opu,
            num_inputs=inputs or 10,
            num_modes=modes or 512,
            demodulator=demodulator,
            matrix=None if matrix in (None, "none") else matrix,  # type: ignore[arg-type]
        )
    path = found.save(folder)
    figures = found.figures()

    def show() -> None:
        rows = [(label(key), quantity(key, value)) for key, value in figures.items()]
        print_table(("measured", "value"), rows, title=f"{name} → {path}")
        print(f"calibration {found.id}")

    return Outcome(json={"id": found.id, "path": str(path), **figures}, show=show)


def _show(name: str, settings: list[str]) -> Outcome:
    from odfa.opu import open_opu
    from odfa.report.destination import check_folder
    from odfa.report.optics import draw_all

    out, rest = take(settings, "out")
    _refuse(rest)
    folder = check_folder(place_of("out", out, f"pictures/{name}"), "out")
    note(f"looking at {name} …")
    with open_opu(name) as opu:
        opu.check_stated()
        figures = draw_all(opu, folder)
    return Outcome(json={"figures": [str(path) for path in figures]}, show=lambda: say("\n".join(map(str, figures))))


_ACTS: dict[str, Callable[[str, list[str]], Outcome]] = {"check": _check, "calibrate": _calibrate, "show": _show}


def _common(settings: list[str]) -> tuple[tuple[Any, int | None, int | None], list[str]]:
    """Demodulator, inputs and modes, and the settings that are left."""
    from odfa.train.build import DEMODULATORS, make_demodulator

    demodulator, rest = take(settings, "demodulator")
    inputs, rest = take(rest, "inputs")
    modes, rest = take(rest, "modes")
    if demodulator is not None and demodulator not in DEMODULATORS:
        raise ConfigError(f"demodulator: expected {' or '.join(DEMODULATORS)}, got {demodulator!r}")
    chosen = None if demodulator is None else make_demodulator(demodulator)
    counts = [
        None if text is None else positive(key, text, 1, most=_MOST)
        for key, text in (("inputs", inputs), ("modes", modes))
    ]
    return (chosen, counts[0], counts[1]), rest


def _refuse(rest: list[str]) -> None:
    if rest:
        raise ConfigError(f"unknown setting {rest[0]!r}; see odfa opu --help")


OPU = Command(
    name="opu",
    help=Help(
        summary="OPUs: list, check, calibrate, show",
        example="odfa opu check opu-2021   # each ACTION has a --help",
    ),
    configure=_configure,
    execute=_execute,
)
