"""`odfa compare`: arms side by side on one recipe."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from odfa.arms import trees
from odfa.cli.arm_words import (
    SEVERAL,
    CompareWords,
    common,
    kept,
    of_arms,
    refuse_singles,
    refuse_without_effect,
    say_electronic,
    told_apart,
)
from odfa.cli.command import Command, Outcome, note, place, print_table, say
from odfa.cli.help import CUT, Help, add_settings, listing, parts_of
from odfa.lab import CompareSettings, Comparison, compare
from odfa.session import RunConfig
from odfa.settings import digest


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="NAME", help="a recipe (see odfa recipes)")
    add_settings(parser)
    parser.add_argument("--run-dir", metavar="DIR", type=place, help="folder of all runs (default: runs/compare-NAME)")


def _listed(words: list[str]) -> str:
    from odfa import recipes

    name, settings = parts_of(words)
    if name is not None:
        tree = common(CompareWords(run=recipes.whole(name)), settings)
        return f"settings ({CUT}):\n\n{listing(tree, without=SEVERAL)}"
    return f"{listing(CompareSettings())}\n\nThese, and every setting of a recipe:\n  odfa compare RECIPE --help"


def _execute(arguments: Namespace) -> Outcome:
    from odfa import recipes

    recipe = recipes.whole(arguments.recipe)
    refuse_singles(arguments.settings, SEVERAL)
    tree = CompareWords(run=recipe)
    words = common(tree, arguments.settings)
    configs = of_arms(tree, arguments.settings)
    refuse_without_effect(tree, words, arguments.settings)
    note(f"comparing arms on {words.run.recipe} …")
    with kept("odfa compare"):
        comparison = compare(
            words.run,
            configs,
            seeds=words.seeds,
            tries=words.tries,
            try_steps=words.try_steps,
            jobs=words.jobs,
            out_dir=arguments.run_dir or _default_run_dir(recipe, words, configs),
            note=note,
        )
    return Outcome(json=comparison.to_json(), show=lambda: _show(comparison))


def _default_run_dir(recipe: RunConfig, words: CompareWords, configs: Mapping[str, RunConfig]) -> Path:
    """runs/compare-<recipe>, and where settings differ from the recipe's, eight digits of their digest."""
    mark = "" if words.run == recipe else f"-{digest(words.run)[:8]}"
    if configs != trees(words.run, words.arms):
        mark += f"-{told_apart(*configs.values())}"
    return Path("runs") / f"compare-{words.run.recipe}{mark}"


def _show(comparison: Comparison) -> None:
    from odfa.lab.table import comparison_cells, electronic_parts, footnotes, title_of

    print_table(*comparison_cells(comparison), title=title_of(comparison))
    say_electronic(electronic_parts(comparison))
    say("\n".join(footnotes(comparison)))
    say(f"table:  {comparison.paths['table']}")
    say("\n".join(f"figure: {path}" for path in (comparison.paths["figure"], *comparison.figures.values())))


COMPARE = Command(
    name="compare",
    help=Help(
        summary="train by several arms side by side: one table, one figure",
        example="odfa compare digits arms=bp,shallow,dfa,odfa seeds=3",
        more=_listed,
    ),
    configure=_configure,
    execute=_execute,
)
