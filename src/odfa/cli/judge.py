"""`odfa judge`: how far generated images are from real ones, as a trained classifier measures it."""

from argparse import ArgumentParser, Namespace
from typing import Any

from odfa.cli.command import Command, Outcome, note, place, print_table
from odfa.cli.help import Help


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", type=place, nargs="+", help="run folders of diffusion models")
    parser.add_argument("--by", metavar="RUN", type=place, required=True, help="run folder of a fashion classifier")
    parser.add_argument("--count", metavar="N", type=int, default=2000, help="images per run (default: 2000)")
    parser.add_argument("--steps", metavar="N", type=int, default=50, help="denoising steps (default: 50)")
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), default="ddim", help="scheduler (default: ddim)")
    parser.add_argument("--guidance", metavar="W", type=float, default=1.0, help="weight of the class (default: 1)")
    parser.add_argument("--seed", metavar="K", type=int, default=0, help="equal seeds, equal noise (default: 0)")


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.image_judge import judge

    note("generating images and measuring them with the classifier …")
    result = judge(
        arguments.runs,
        arguments.by,
        count=arguments.count,
        sampler=arguments.sampler,
        steps=arguments.steps,
        guidance=arguments.guidance,
        seed=arguments.seed,
    )
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
        example="odfa judge runs/fashion_diffusion-bp-seed0 --by runs/fashion_cnn-bp-seed0",
    ),
    configure=_configure,
    execute=_execute,
)
