"""`odfa plan`: what training a model would cost, by which method, with and without light."""

import contextlib
import math
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from odfa.cli.command import Command, Outcome, note, print_table, say
from odfa.cli.help import Help, add_settings, listing
from odfa.errors import ConfigError
from odfa.settings import apply, keys

_OF_RUNS = {"arm", "arms", "method", "methods", "encoder", "seeds"}
"""Words of odfa train and compare that are no part of a run's settings, or are inside one."""


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a recipe, gpt2-xl, gpt3-2.7b, gpt:24x1024, a folder with config.json, or package.module:function",
    )
    add_settings(parser)


def _listed(_words: list[str]) -> str:
    from odfa.scaling import PlanSettings

    return listing(PlanSettings())


def _execute(arguments: Namespace) -> Outcome:
    from odfa.scaling import PlanSettings, make_plan

    if "=" in arguments.model:
        raise ConfigError(f"expected a model first, got {arguments.model!r}; see odfa plan --help")
    _refuse_of_runs(arguments.settings)
    config = apply(PlanSettings(), arguments.settings)
    # what a model's own code prints is not the result, so it goes to standard error
    with _told_if_slow(arguments.model), contextlib.redirect_stdout(sys.stderr):
        page = make_plan(arguments.model, config)
    return Outcome(json=page, show=lambda: _show(page))


def _refuse_of_runs(settings: list[str]) -> None:
    """A plan compares ways to train; the settings of one run are those of its recipe."""
    from odfa.scaling import PlanSettings
    from odfa.session import RunConfig

    ours, of_runs = keys(PlanSettings()), {entry.name for entry in fields(RunConfig)} | _OF_RUNS
    for setting in settings:
        name = setting.partition("=")[0].strip()
        part = name.partition(".")[0]
        if part in ours or part not in of_runs:
            continue
        if part == "batch_size":
            raise ConfigError(f"{name}: a plan takes the rows of a whole step, expected tokens=N, got {setting}")
        if name == "memory.precision":
            raise ConfigError(
                f"{name}: a plan takes layout.precision=float32, bfloat16 or mixed, got {setting}; mixed has as many "
                "bytes a parameter as memory.precision=autocast, but for its copies in two bytes while a step lasts"
            )
        raise ConfigError(
            f"{name}: a plan compares bp, dfa and odfa, with checkpointing, offloading and streaming, on one page, and "
            "takes no settings of a run; those of a recipe are planned as they stand, so name one, or a function that "
            "returns a run (package.module:function); see odfa plan --help"
        )


@contextlib.contextmanager
def _told_if_slow(model: str) -> Iterator[None]:
    """Print a note after three seconds: most models take one second, models that loop over positions take minutes."""
    line = f"counting the operations of {model}; models that loop over positions take long …"
    timer = threading.Timer(3, note, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _show(page: dict[str, Any]) -> None:
    inputs, outputs = page["projection"]["inputs"], page["projection"]["outputs"]
    say(f"{page['model']}: {page['parameters']:,} parameters, {page['blocks']} blocks")
    for said in _reservations(page):
        say(said)
    projected = f" of {inputs:,} entries, projected to {outputs:,}" if inputs else "; its rule projects none of them"
    say(f"a step of {page['rows_per_step']:,} error rows{projected}")
    say(f"{page['devices']} x {page['processor']['name']}: {page['processor']['source']}")
    say(f"{page['opu']['name']}: {page['opu']['source']}")
    print_table(
        ("method", "fits", "memory", "step", "rows per second", "energy", "longest part", "light", "OPU used"),
        [_cells(row) for row in page["methods"]],
    )
    for name, why in page["refused"].items():
        say(f"{name}: {why}")
    say(f"Fastest that fits: {page['fastest']}." if _any_fits(page) else _unfit(page))
    if page["change_first"]:
        say("What would bring odfa most:")
    for row in page["change_first"][:4]:
        say(f"  {row['times_as_fast']:.2f} x as fast: {row['change']}")


def _reservations(page: dict[str, Any]) -> Iterator[str]:
    """Sentences on what the figures leave out or estimate."""
    yield from page["assumed"]
    if page["left_out"]:
        yield f"the part for text alone, without {', '.join(page['left_out'])}"
    if page["without_gradient"]:
        yield f"{page['without_gradient']:,} parameters do nothing in this step; they count as weights only"
    if page["estimated"]:
        yield (
            f"no formula for {', '.join(page['estimated'])}: counted as 2 operations for each number in and out, which "
            "is the least; torch.utils.flop_counter.register_flop_formula gives one"
        )


def _unfit(page: dict[str, Any]) -> str:
    """Nothing fits: the method that needs least, and what it needs."""
    least = min(page["methods"], key=lambda row: row["memory_bytes"]["total"])
    enough = math.ceil(least["memory_bytes"]["total"])
    return (
        f"Nothing fits. {least['method']} needs least: processor.memory_bytes={enough}; more devices (devices=), or "
        "fewer tokens (tokens=), need less."
    )


def _any_fits(page: dict[str, Any]) -> bool:
    return any(row["fits"] for row in page["methods"])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    light = row["light"]
    return (
        row["method"],
        "yes" if row["fits"] else "no",
        f"{row['memory_bytes']['total'] / 1e9:,.3g} GB",
        f"{row['step_s']:,.4g} s",
        f"{row['tokens_per_s']:,.0f}",
        f"{row['energy_j']:,.4g} J",
        f"{row['limit']} {row['parts_s'][row['limit']]:,.3g} s",
        f"{light['seconds']:,.3g} s" if light["frames"] else "none",
        f"{light['utilisation']:.1e}" if light["frames"] else "",
    )


PLAN = Command(
    name="plan",
    help=Help(
        summary="what training a model costs, by each method",
        example="odfa plan gpt3-2.7b processor=a100 opu=opu-2021 tokens=8192",
        more=_listed,
    ),
    configure=_configure,
    execute=_execute,
)
