"""`odfa align`: the angle between the gradient that each block learned by and its true gradient."""

from argparse import ArgumentParser, Namespace
from typing import Any

from odfa.cli.command import Command, Outcome, note, place, print_table, say
from odfa.cli.help import Help, add_settings, listing
from odfa.settings import apply


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=place, help="a run folder")
    add_settings(parser)


def _listed(_words: list[str]) -> str:
    from odfa.lab.angles import AlignSettings

    return listing(AlignSettings())


def _execute(arguments: Namespace) -> Outcome:
    from odfa.lab.angles import AlignSettings, align

    settings = apply(AlignSettings(), arguments.settings)
    note(f"measuring the gradients of {arguments.run} …")
    result = align(arguments.run, settings)
    return Outcome(json=result, show=lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    rows = [
        (block["name"], _signed(block["cosine"]), f"{block['norm']:.3g}", f"{block['true_norm']:.3g}")
        for block in result["blocks"]
    ]
    run = f"{result['run']} · {result['arm']}, rule {result['rule']}"
    title = f"{run} · step {result['step']} · {result['samples']} validation samples"
    print_table(("block", "cosine to the true gradient", "gradient norm", "true gradient norm"), rows, title=title)
    if "figure" in result:
        say(f"figure: {result['figure']}")


def _signed(cosine: float | None) -> str:
    return "none" if cosine is None else f"{cosine:+.4f}"


ALIGN = Command(
    name="align",
    help=Help(
        summary="cosine to the true gradient, block by block",
        example="odfa align runs/digits-dfa-seed0",
        more=_listed,
    ),
    configure=_configure,
    execute=_execute,
)
