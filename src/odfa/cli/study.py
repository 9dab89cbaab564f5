"""`odfa study`: time this machine; compute time and energy of large GPTs; simulate workers that share OPUs; follow the
loss over compute."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odfa.cli.command import Command, Outcome, note, place, print_table, say
from odfa.cli.help import CUT, Help, add_actions, add_settings, listing
from odfa.cli.quantities import label, quantity, short
from odfa.settings import apply, to_dict

if TYPE_CHECKING:
    from odfa.scaling import MachineMeasurement

_QUICK_REPEATS = 2
"""Rounds of timing where `odfa study scaling` finds no measurement and has to make one."""


def _configure(parser: ArgumentParser) -> None:
    actions = {name: (shown, _configure_action) for name, shown in _HELP.items()}
    add_actions(parser, {**actions, "learning": (_LEARNING, _configure_learning)})


def _configure_action(parser: ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be timed, and time nothing")


def _configure_learning(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="NAME", nargs="?", help="a recipe of a language model (default: deep_gpt)")
    add_settings(parser)
    parser.add_argument("--run-dir", metavar="DIR", type=place, help="folder of runs (default: runs/study-learning)")
    parser.add_argument("--dry-run", action="store_true", help="print the sizes and what they cost, and train nothing")


def _listed_measure(_words: list[str]) -> str:
    from odfa.scaling.actions import MeasureSettings

    return listing(MeasureSettings())


def _listed_scaling(_words: list[str]) -> str:
    from odfa.scaling.actions import ScalingSettings

    return f"settings ({CUT}):\n\n{listing(ScalingSettings())}"


def _listed_share(_words: list[str]) -> str:
    from odfa.scaling.actions import ShareSettings

    return f"settings ({CUT}):\n\n{listing(ShareSettings())}"


_HELP = {
    "measure": Help(
        summary="time training steps of small GPTs on this machine, and fit its constants to them",
        example="odfa study measure repeats=3 memory=false out=here.json",
        more=_listed_measure,
    ),
    "scaling": Help(
        summary="time and energy of GPTs up to a trillion parameters; the size from which odfa is faster",
        example="odfa study scaling processors=a100 vectors=token out=curves",
        more=_listed_scaling,
    ),
    "share": Help(
        summary="simulate workers that share OPUs, event by event",
        example="odfa study share workers=1,2,4 straggle=0.1 out=room",
        more=_listed_share,
    ),
}


def _listed_learning(words: list[str]) -> str:
    from odfa.cli.learning import listed_learning

    return listed_learning(words)


_LEARNING = Help(
    summary="how the loss falls with compute, by arm: a recipe at several sizes, a power law for each arm",
    example="odfa study learning deep_gpt arms=bp,odfa,dfa:random axis=width sizes=32,64,96",
    more=_listed_learning,
)


def _execute(arguments: Namespace) -> Outcome:
    return _ACTIONS[arguments.action](arguments)


def _measure(arguments: Namespace) -> Outcome:
    from odfa.devices import device_named
    from odfa.lab.destination import check_file
    from odfa.scaling.actions import MeasureSettings
    from odfa.scaling.measurement import planned, report
    from odfa.session.threads import using_threads

    config = apply(MeasureSettings(), arguments.settings)
    path, device = check_file(config.out, "out"), device_named(config.device, "see odfa env")
    words: dict[str, Any] = {name: getattr(config, name) for name in ("memory", "repeats", "precision")}
    if arguments.dry_run:
        return _told(planned(**words, device=device))
    note(f"timing {device} of this machine: a step of many small GPTs, some minutes …")
    with using_threads(config.threads):
        measured = _timed(path, **words, device=device)
    machine = measured.machine()
    found = report(measured, machine)
    return Outcome(json={**found, "file": str(path)}, show=lambda: _show_measured(found, path))


def _timed(path: Path, **words: Any) -> "MachineMeasurement":
    from odfa.scaling import measure_machine

    measured = measure_machine(**words, note=note)
    measured.write(path)
    return measured


def _scaling(arguments: Namespace) -> Outcome:
    from odfa.lab.destination import check_folder
    from odfa.scaling import get_processor, run_study
    from odfa.scaling.actions import MEASUREMENT, ScalingSettings
    from odfa.scaling.measurement import measured_points, planned, read, report

    config = apply(ScalingSettings(), arguments.settings)
    known = config.measured or MEASUREMENT
    folder = check_folder(config.out, "out")
    # a file that was named has to be there; the usual one is made where it is missing
    timed = config.measured is not None or known.exists()
    if arguments.dry_run:
        to_time = {} if timed else planned(memory=False, repeats=_QUICK_REPEATS)
        return _told({"measured": str(known) if timed else None, "to_time": to_time, "study": to_dict(config.study)})
    measured = read(known) if timed else _timed(known, memory=False, repeats=_QUICK_REPEATS)
    note("computing times and energies up to a trillion parameters …")
    machine = measured.machine()
    found, checks = run_study(config.study), report(measured, machine)
    found["points"] = measured_points(measured, machine) + found["points"]
    found["measurement"] = {key: checks[key] for key in ("environment", "step_errors", "peak_errors")}
    written = _draw(found, checks, get_processor(config.study.processors[0]).name, folder)
    return Outcome(json={**found, "files": [str(path) for path in written]}, show=lambda: _show_study(found, written))


def _draw(found: dict[str, Any], checks: dict[str, Any], processor: str, folder: Path) -> list[Path]:
    from odfa.lab.scaling import draw_checks, draw_curves

    points = [row for row in found["points"] if row["processor"] == processor]
    paths = [folder / "time.png", folder / "energy.png", folder / "predicted.png"]
    draw_curves(points, "predicted_s_per_token", "seconds per token", paths[0])
    draw_curves(points, "energy_j_per_token", "joules per token", paths[1])
    draw_checks({"s": checks["steps"], "bytes": checks["peaks"]}, paths[2])
    return paths


def _share(arguments: Namespace) -> Outcome:
    from odfa.lab.destination import check_figure
    from odfa.lab.scaling import draw_sharing
    from odfa.scaling.actions import ShareSettings
    from odfa.scaling.share import ROOMS, Sharing, SharingConditions, sweep

    config = apply(ShareSettings(), arguments.settings)
    asked = config.sharing != SharingConditions()
    rooms = {"as asked": Sharing(**vars(config.sharing))} if asked else ROOMS
    path = check_figure(config.out / "sharing.png", "out")
    if arguments.dry_run:
        workers = list(config.workers)
        return _told({"workers": workers, "steps": config.steps, "timed": "nothing: events are simulated"})
    note("simulating workers and the OPUs that they share, event by event …")
    sweeps = {name: sweep(room, config.workers, steps=config.steps) for name, room in rooms.items()}
    draw_sharing(sweeps, path)
    found = {"rooms": {name: to_dict(room) for name, room in rooms.items()}, "sweeps": sweeps, "files": [str(path)]}
    return Outcome(json=found, show=lambda: _show_share(sweeps, path))


def _learning(arguments: Namespace) -> Outcome:
    from odfa.cli.learning import study_learning

    return study_learning(arguments)


def _told(planned: dict[str, Any]) -> Outcome:
    def show() -> None:
        for key, value in planned.items():
            rows = value if isinstance(value, list) else [value]
            print(f"{key}: {len(rows)}" if len(rows) > 1 else f"{key}: {rows[0] if rows else 'none'}")
            for row in rows if len(rows) > 1 else ():
                print(f"  {row}")

    return Outcome(json=planned, show=show)


def _show_measured(found: dict[str, Any], path: Path) -> None:
    rows = [
        (name, errors["count"], f"{errors['median']:.1%}", f"{errors['worst']:.1%}")
        for name, errors in {
            **found["step_errors"],
            **{f"memory, {k}": v for k, v in found["peak_errors"].items()},
        }.items()
    ]
    print_table(("predicted against measured", "configurations", "median off", "worst"), rows)
    constants = ("matmul_flops_per_s", "attention_flops_per_s", "bytes_per_s", "call_s")
    print_table(("constant", "fitted"), [(label(name), quantity(name, found["machine"][name])) for name in constants])
    say(f"Written to {path}.")


def _show_study(found: dict[str, Any], written: list[Path]) -> None:
    cells = [
        (
            row["family"], row["processor"], row["opu"], row["vectors"], row["baseline"], _size(row),
            f"{_size(row['low'])} – {_size(row['high'])}", _size(row["energy"]), row["made_by"] or "",
        )
        for row in found["crossovers"]
    ]  # fmt: skip
    print_table(
        ("family", "processor", "OPU", "vector per", "against", "crossover", "band", "in energy", "made by"), cells
    )
    print_table(
        ("on 1e14 FLOP/s, deep GPTs", "crossover", "band", "made by"),
        [
            (row["statement"], _size(row), f"{_size(row['low'])} – {_size(row['high'])}", row["made_by"] or "")
            for row in found["statements"]
        ],
    )
    say("Figures: " + ", ".join(map(str, written)))


def _size(crossed: dict[str, Any]) -> str:
    return crossed["verdict"] if crossed["parameters"] is None else short(float(f"{crossed['parameters']:.2g}"))


def _show_share(sweeps: dict[str, list[dict[str, float]]], path: Path) -> None:
    columns = (
        "workers",
        "steps_per_s",
        "closed_form_steps_per_s",
        "ratio",
        "latency_s",
        "latency_p99_s",
        "utilisation",
    )
    for name, rows in sweeps.items():
        cells = [[short(row[column]) for column in columns] for row in rows]
        print_table([column.replace("_", " ") for column in columns], cells, title=name)
    say(f"Figure: {path}")


_ACTIONS: dict[str, Callable[[Namespace], Outcome]] = {
    "measure": _measure,
    "scaling": _scaling,
    "share": _share,
    "learning": _learning,
}
STUDY = Command(
    name="study",
    help=Help(
        summary="time this machine; time and energy of large GPTs; shared OPUs; loss over compute",
        example="odfa study share workers=1,2,4   # each ACTION has a --help",
    ),
    configure=_configure,
    execute=_execute,
)
