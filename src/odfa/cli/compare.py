"""`odfa compare`: arms side by side on one recipe."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from odfa.arms import DEFAULT_ARMS, trees
from odfa.cli.command import Command, Outcome, note, place, positive, print_table, say, take
from odfa.cli.help import Help, add_settings
from odfa.errors import ConfigError
from odfa.session import RunConfig
from odfa.settings import MAX_COUNT, apply, digest
from odfa.train import Interrupted

if TYPE_CHECKING:
    from odfa.lab import Comparison


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="NAME", help="a recipe (see odfa recipes)")
    add_settings(parser)
    parser.add_argument("--run-dir", metavar="DIR", type=place, help="folder of all runs (default: runs/compare-NAME)")


def _execute(arguments: Namespace) -> Outcome:
    from odfa import recipes
    from odfa.lab import compare

    arms, settings = take(arguments.settings, "arms")
    seeds, settings = take(settings, "seeds")
    tries, settings = take(settings, "tries")
    try_steps, settings = take(settings, "try_steps")
    jobs, settings = take(settings, "jobs")
    _refuse_singles(settings)
    recipe = recipes.whole(arguments.recipe)
    config = apply(recipe, settings)
    words = [name.strip() for name in (DEFAULT_ARMS if arms is None else arms).split(",")]
    _refuse_unheard(recipe, settings, words)
    note(f"comparing arms on {config.recipe} …")
    try:
        comparison = compare(
            config,
            words,
            seeds=positive("seeds", seeds, 3, most=1000),
            tries=positive("tries", tries, 3, most=100),
            jobs=positive("jobs", jobs, 1, most=os.cpu_count() or 1),
            try_steps=None if try_steps is None else positive("try_steps", try_steps, 1, most=MAX_COUNT),
            out_dir=arguments.run_dir or _default_run_dir(config, recipe),
            note=note,
        )
    except Interrupted as stopped:
        advice = "what is finished is kept: go on with the same odfa compare command"
        raise Interrupted(stopped.step, stopped.run_dir, advice=advice) from stopped
    return Outcome(json=comparison.to_json(), show=lambda: _show(comparison))


def _refuse_singles(settings: list[str]) -> None:
    for word, instead in (("seed", "seeds=3"), ("arm", f"arms={DEFAULT_ARMS}")):
        given, _ = take(settings, word)
        if given is not None:
            raise ConfigError(f"compare runs several of them: expected {instead}, got {word}={given}")


def _refuse_unheard(recipe: RunConfig, settings: list[str], words: list[str]) -> None:
    """A setting that changes the recipe but none of its arms would be heard by nobody."""
    for setting in settings:
        others = [other for other in settings if other is not setting]
        try:
            without = apply(recipe, others)
        except ConfigError:  # the others need this one
            continue
        whole = apply(recipe, settings)
        if whole != without and trees(whole, words) == trees(without, words):
            raise ConfigError(f"{setting}: none of the arms {','.join(words)} has this setting; leave it out")


def _default_run_dir(config: RunConfig, recipe: RunConfig) -> Path:
    """runs/compare-<recipe>, with a mark of the settings where they are not the recipe's own."""
    mark = "" if config == recipe else f"-{digest(config)[:8]}"
    return Path("runs") / f"compare-{config.recipe}{mark}"


def _show(comparison: "Comparison") -> None:
    from odfa.lab.table import comparison_cells, electronic_parts, footnotes, title_of

    print_table(*comparison_cells(comparison), title=title_of(comparison))
    say("What is electronic:")
    parts = electronic_parts(comparison)
    widest = max(map(len, parts))
    for arm, part in parts.items():
        say(f"  {arm:<{widest}}  {part}", indent=widest + 4)
    say("\n".join(footnotes(comparison)))
    say(f"table:  {comparison.paths['table']}")
    say("\n".join(f"figure: {path}" for path in (comparison.paths["figure"], *comparison.figures.values())))


COMPARE = Command(
    name="compare",
    help=Help(
        summary="train by several arms side by side: one table, one figure",
        example="odfa compare digits arms=bp,shallow,dfa,odfa seeds=3",
        settings={
            "arms=bp,shallow,dfa,odfa": "arms, or ARM:RULE such as dfa:random",
            "seeds=3": "runs of each arm",
            "tries=3": "learning rates per arm, the best is chosen on validation data",
            "try_steps=STEPS": "shorter tries",
            "jobs=1": "runs at a time, each in a process of its own; with more than one say threads=1",
            "KEY=VALUE": "settings of all runs, see odfa train RECIPE --help",
        },
    ),
    configure=_configure,
    execute=_execute,
)
