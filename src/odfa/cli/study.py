"""`odfa study`: time this machine, follow GPTs to a trillion parameters, share an OPU in simulation."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odfa.cli.command import Command, Outcome, note, place_of, positive, print_table, say, take
from odfa.cli.help import Help, add_actions, add_settings, listing
from odfa.cli.quantity import label, quantity, short
from odfa.errors import ConfigError
from odfa.settings import apply, to_dict

if TYPE_CHECKING:
    from odfa.scaling import Measurement

_FOLDER = Path("runs/study")
_MEASUREMENT = _FOLDER / "measurement.json"
_QUICK_REPEATS = 2
_MOST_EVENTS = 10_000_000


def _configure(parser: ArgumentParser) -> None:
    add_actions(parser, {name: (shown, _configure_action) for name, shown in _HELP.items()})


def _configure_action(parser: ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be timed, and stop")


def _listed_study(_words: list[str]) -> str:
    from odfa.scaling import StudyConfig

    return listing(StudyConfig())


def _listed_room(_words: list[str]) -> str:
    from odfa.scaling import Sharing

    return listing(Sharing())


_HELP = {
    "measure": Help(
        summary="time training steps of small GPTs on this machine, and fit its constants to them",
        example="odfa study measure repeats=3 memory=false out=here.json",
        settings={
            "repeats=6": "rounds; the fastest of each step counts",
            "memory=true": "measure peak memory too",
            "threads=N": "processor threads; as many as torch takes by itself",
            f"out={_MEASUREMENT}": "file of the measurement",
        },
    ),
    "scaling": Help(
        summary="time and energy of families of GPTs up to a trillion parameters, and where light overtakes",
        example="odfa study scaling processors=a100 vectors=token out=curves",
        settings={
            f"measured={_MEASUREMENT}": "what odfa study measure wrote; where there is none, this machine is timed",
            f"out={_FOLDER}": "folder of the figures",
        },
        more=_listed_study,
    ),
    "share": Help(
        summary="simulate workers that share OPUs, event by event",
        example="odfa study share workers=1,2,4 straggle=0.1 out=room",
        settings={
            "workers=1,2,4,8,10,11,12,16,32": "numbers of workers, one simulation each",
            "steps=500": "steps of each worker",
            f"out={_FOLDER}": "folder of the figure",
        },
        more=_listed_room,
    ),
}


def _execute(arguments: Namespace) -> Outcome:
    return _ACTIONS[arguments.action](list(arguments.settings), arguments.dry_run)


def _measure(settings: list[str], dry_run: bool) -> Outcome:
    import torch

    from odfa.report.destination import check_file
    from odfa.scaling.measurement import planned, report

    out, settings = take(settings, "out")
    repeats, settings = take(settings, "repeats")
    memory, settings = take(settings, "memory")
    threads, settings = take(settings, "threads")
    _refuse(settings)
    if memory not in (None, "true", "false"):
        raise ConfigError(f"memory: expected true or false, got {memory!r}")
    with_memory, times = memory != "false", positive("repeats", repeats, 6, most=1000)
    count = positive("threads", threads, torch.get_num_threads(), most=os.cpu_count() or 1)
    path = check_file(place_of("out", out, _MEASUREMENT), "out")
    if dry_run:
        return _told(planned(memory=with_memory, repeats=times))
    note("timing this machine: a step of many small GPTs, some minutes …")
    measured = _with_threads(count, lambda: _timed(path, memory=with_memory, repeats=times))
    machine = measured.machine()
    found = report(measured, machine)
    return Outcome(json={**found, "file": str(path)}, show=lambda: _show_measured(found, path))


def _timed(path: Path, *, memory: bool, repeats: int) -> "Measurement":
    from odfa.scaling import measure

    measured = measure(memory=memory, repeats=repeats, note=note)
    measured.write(path)
    return measured


def _with_threads(count: int, call: "Callable[[], Measurement]") -> "Measurement":
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


def _scaling(settings: list[str], dry_run: bool) -> Outcome:
    from odfa.report.destination import check_folder
    from odfa.scaling import StudyConfig, study
    from odfa.scaling.measurement import measured_points, planned, read, report

    given, settings = take(settings, "measured")
    out, settings = take(settings, "out")
    config = apply(StudyConfig(), settings)
    known = place_of("measured", given, _MEASUREMENT)
    folder = check_folder(place_of("out", out, _FOLDER), "out")
    timed = given is not None or known.exists()
    if dry_run:
        to_time = {} if timed else planned(memory=False, repeats=_QUICK_REPEATS)
        return _told({"measured": str(known) if timed else None, "to_time": to_time, "study": to_dict(config)})
    measured = read(known) if timed else _timed(known, memory=False, repeats=_QUICK_REPEATS)
    note("following the curves up to a trillion parameters …")
    machine = measured.machine()
    found, checks = study(config), report(measured, machine)
    found["points"] = measured_points(measured, machine) + found["points"]
    found["measurement"] = {key: checks[key] for key in ("environment", "step_errors", "peak_errors")}
    written = _draw(found, checks, config.processors[0], folder)
    return Outcome(json={**found, "files": [str(path) for path in written]}, show=lambda: _show_study(found, written))


def _draw(found: dict[str, Any], checks: dict[str, Any], processor: str, folder: Path) -> list[Path]:
    from odfa.report.scaling import draw_checks, draw_curves

    points = [row for row in found["points"] if row["processor"] == processor]
    paths = [folder / "time.png", folder / "energy.png", folder / "predicted.png"]
    draw_curves(points, "predicted_s_per_token", "seconds per token", paths[0])
    draw_curves(points, "energy_j_per_token", "joules per token", paths[1])
    draw_checks({"s": checks["steps"], "bytes": checks["peaks"]}, paths[2])
    return paths


def _share(settings: list[str], dry_run: bool) -> Outcome:
    from odfa.report.destination import check_figure
    from odfa.report.scaling import draw_sharing
    from odfa.scaling import Sharing
    from odfa.scaling.share import MOST, ROOMS, sweep

    counts, settings = take(settings, "workers")
    out, settings = take(settings, "out")
    steps, settings = take(settings, "steps")
    workers = [
        positive("workers", count.strip(), 1, most=MOST) for count in (counts or "1,2,4,8,10,11,12,16,32").split(",")
    ]
    rooms = {"as asked": apply(Sharing(), settings)} if settings else ROOMS
    num_steps = positive("steps", steps, 500, most=100_000)
    if sum(workers) * num_steps > _MOST_EVENTS:
        raise ConfigError(
            f"workers and steps: expected at most {_MOST_EVENTS:,} steps of all workers together, "
            f"got {sum(workers) * num_steps:,}"
        )
    path = check_figure(place_of("out", out, _FOLDER) / "sharing.png", "out")
    if dry_run:
        return _told({"workers": workers, "steps": num_steps, "timed": "nothing: events are simulated"})
    note("simulating a shared room event by event …")
    sweeps = {name: sweep(room, workers, steps=num_steps) for name, room in rooms.items()}
    draw_sharing(sweeps, path)
    found = {"rooms": {name: to_dict(room) for name, room in rooms.items()}, "sweeps": sweeps, "files": [str(path)]}
    return Outcome(json=found, show=lambda: _show_share(sweeps, path))


def _refuse(settings: list[str]) -> None:
    if settings:
        raise ConfigError(f"unknown setting {settings[0]!r}; see odfa study measure --help")


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


_ACTIONS: dict[str, Callable[[list[str], bool], Outcome]] = {"measure": _measure, "scaling": _scaling, "share": _share}
STUDY = Command(
    name="study",
    help=Help(
        summary="time this machine; time and energy up to a trillion parameters; shared OPUs",
        example="odfa study share workers=1,2,4   # each ACTION has a --help",
    ),
    configure=_configure,
    execute=_execute,
)
