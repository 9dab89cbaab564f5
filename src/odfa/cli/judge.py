"""`odfa judge`: how far generated images are from real ones, as a trained classifier measures it."""

from argparse import ArgumentParser, Namespace
from typing import Any

from odfa.cli.command import Command, Outcome, note, print_table
from odfa.cli.help import Help, listing
from odfa.cli.runs import add_runs, some_parted
from odfa.settings import apply


def _configure(parser: ArgumentParser) -> None:
    add_runs(parser, "run folders of diffusion models")


def _listed(_words: list[str]) -> str:
    from odfa.lab.image_judge import JudgeSettings

    return listing(JudgeSettings())


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.image_judge import JudgeSettings, judge

    runs, words = some_parted([*arguments.runs, *arguments.settings], "judge")
    settings = apply(JudgeSettings(), words)
    note(f"generating images and measuring them with {settings.judge_dir()} …")
    result = judge(runs, settings)
    return Outcome(json=result, show=lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    rows = [(row["arm"], row["rule"], *_figures(row), row["run"]) for row in result["runs"]]
    rows.append(("–", "–", *_figures(result["real"]), "training images"))
    settings = (
        f"{result['count']} images, {result['sampler']}, {result['steps']} steps, guidance {result['guidance']:g}"
    )
    columns = ("arm", "rule", "Fréchet distance", "class agreement", "nearest neighbour", "run")
    print_table(columns, rows, title=f"{settings}, judged by {result['judge']}")


def _figures(row: dict[str, Any]) -> tuple[str, str, str]:
    neighbour = "–" if row["neighbour"] is None else f"{row['neighbour']:.2f}"
    return f"{row['frechet']:.2f}", f"{row['agreement']:.1%}", neighbour


JUDGE = Command(
    name="judge",
    help=Help(
        summary="quality of generated images by a classifier",
        example="odfa judge runs/fashion_diffusion-bp-seed0 by=runs/fashion_cnn-bp-seed0",
        more=_listed,
    ),
    configure=_configure,
    execute=_execute,
)
