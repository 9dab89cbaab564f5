"""`odfa project bench`: projections side by side with their peers."""

import os
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from odfa.cli.command import Command, Outcome, note, positive, print_table, say, take
from odfa.cli.help import Help, add_actions, add_settings
from odfa.errors import ConfigError

_BENCH = Help(
    summary="time projections beside their peers, in one process",
    example="odfa project bench sizes=1e3x1e3,1e4x1e4 repeats=5",
    settings={
        "sizes=1e3x1e3,1e3x1e5,1e4x1e4,5e4x1e5,opu": "inputs x outputs",
        "repeats=7": "times that each is timed, the median counts",
        "threads=N": "processor threads; as many as torch takes by itself",
    },
)


def _configure(parser: ArgumentParser) -> None:
    add_actions(parser, {"bench": (_BENCH, add_settings)})


def _execute(arguments: Namespace) -> Outcome:
    import torch

    from odfa.lab.projections import MEANING, OPU_TERAOPS, SIZES, run

    chosen, settings = take(list(arguments.settings), "sizes")
    repeats, settings = take(settings, "repeats")
    threads, settings = take(settings, "threads")
    if settings:
        raise ConfigError(f"unknown setting {settings[0]!r}; see odfa project bench --help")
    sizes = list(SIZES) if chosen is None else [size.strip() for size in chosen.split(",")]
    for size in sizes:
        if size not in SIZES:
            raise ConfigError(f"sizes: expected some of {', '.join(SIZES)}, got {size!r}")
    before = torch.get_num_threads()
    torch.set_num_threads(positive("threads", threads, before, most=os.cpu_count() or 1))
    try:
        rows = run(sizes, repeats=positive("repeats", repeats, 7, most=10_000), note=note)
    finally:
        torch.set_num_threads(before)

    def show() -> None:
        cells = [
            (
                row.name, f"{row.n} → {row.m}", row.batch, row.threads, f"{row.per_second:,.0f}",
                f"{row.effective_teraops:,.3g}", f"{row.effective_teraops / OPU_TERAOPS:.3g}", f"{row.state_bytes:,}",
                "" if row.rms_rel_error is None else f"{row.rms_rel_error:.1e}",
                ", ".join(f"{name} {ratio:.3g}×" for name, ratio in row.ratios.items()),
            )
            for row in rows
        ]  # fmt: skip
        print_table(
            ("projection", "size", "batch", "threads", "per second", "effective TeraOPS", "× OPU", "state, bytes",
             "rms error", "faster than"),
            cells,
        )  # fmt: skip
        say(MEANING)

    return Outcome(json={"meaning": MEANING, "rows": [asdict(row) for row in rows]}, show=show)


PROJECT = Command(
    name="project",
    help=Help(
        summary="projections: time them beside their peers",
        example="odfa project bench   # has a --help",
    ),
    configure=_configure,
    execute=_execute,
)
