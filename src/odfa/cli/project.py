"""`odfa project bench`: projections side by side with their peers."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from odfa.cli.command import Command, Outcome, note, print_table, say
from odfa.cli.help import Help, add_actions, add_settings, listing
from odfa.settings import apply

if TYPE_CHECKING:
    from odfa.lab.projections import Row

_COLUMNS = (
    "projection", "size", "batch", "device", "threads", "per second", "effective TeraOPS", "× OPU", "state, bytes",
    "rms error", "faster than",
)  # fmt: skip


def _listed(_words: list[str]) -> str:
    from odfa.lab.projections import ProjectionBenchSettings

    return listing(ProjectionBenchSettings())


_BENCH = Help(
    summary="time projections beside their peers, in one process",
    example="odfa project bench sizes=1e3x1e3,1e4x1e4 repeats=5",
    more=_listed,
)


def _configure(parser: ArgumentParser) -> None:
    add_actions(parser, {"bench": (_BENCH, add_settings)})


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.projections import MEANING, ProjectionBenchSettings, run

    rows = run(apply(ProjectionBenchSettings(), arguments.settings), note=note)
    return Outcome(json={"meaning": MEANING, "rows": [asdict(row) for row in rows]}, show=lambda: _show(rows))


def _show(rows: "list[Row]") -> None:
    from odfa.lab.projections import MEANING

    print_table(_COLUMNS, map(_cells, rows))
    say(MEANING)


def _cells(row: "Row") -> tuple[object, ...]:
    from odfa.lab.projections import OPU_TERAOPS

    return (
        row.name, f"{row.n} → {row.m}", row.batch, row.device, row.threads, f"{row.per_second:,.0f}",
        f"{row.effective_teraops:,.3g}", f"{row.effective_teraops / OPU_TERAOPS:.3g}", f"{row.state_bytes:,}",
        "" if row.rms_rel_error is None else f"{row.rms_rel_error:.1e}",
        ", ".join(f"{name} {ratio:.3g}×" for name, ratio in row.ratios.items()),
    )  # fmt: skip


PROJECT = Command(
    name="project",
    help=Help(
        summary="projections: time them beside their peers",
        example="odfa project bench   # has a --help",
    ),
    configure=_configure,
    execute=_execute,
)
