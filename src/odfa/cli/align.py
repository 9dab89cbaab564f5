"""`odfa align`: the angle between the gradient that each block learned by and its true gradient."""

from argparse import ArgumentParser, Namespace
from typing import Any

from odfa.cli.command import Command, Outcome, note, place, print_table
from odfa.cli.help import Help


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=place, help="a run folder")
    parser.add_argument("--image", metavar="FILE", type=place, help="also draw the angles over training (align_every)")


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.angles import align, draw_alignment, measured_angles
    from odfa.lab.destination import check_figure

    if arguments.image is not None:
        check_figure(arguments.image, "--image")
        measured_angles(arguments.run)
    note(f"measuring the gradients of {arguments.run} …")
    result = align(arguments.run)
    if arguments.image is not None:
        draw_alignment(arguments.run, arguments.image)
        result["figure"] = str(arguments.image)
    return Outcome(json=result, show=lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    rows = [
        (block["name"], _signed(block["cosine"]), f"{block['norm']:.3g}", f"{block['true_norm']:.3g}")
        for block in result["blocks"]
    ]
    run = f"{result['run']} · {result['arm']}, rule {result['rule']}"
    title = f"{run} · step {result['step']} · {result['samples']} validation samples"
    print_table(("block", "cosine to the true gradient", "gradient norm", "true gradient norm"), rows, title=title)


def _signed(cosine: float | None) -> str:
    return "none" if cosine is None else f"{cosine:+.4f}"


ALIGN = Command(
    name="align",
    help=Help(
        summary="cosine to the true gradient, block by block",
        example="odfa align runs/digits-dfa-seed0",
    ),
    configure=_configure,
    execute=_execute,
)
