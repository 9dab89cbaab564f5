"""`odfa compare`: arms side by side on one recipe."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from pathlib import Path

from odfa.arms import DEFAULT_ARMS, trees
from odfa.cli.command import Command, Outcome, note, place, print_table, say
from odfa.cli.help import CUT, Help, add_settings, listing, parts_of
from odfa.errors import ConfigError
from odfa.lab import CompareSettings, Comparison, compare
from odfa.session import RunConfig
from odfa.settings import INLINE, apply, digest, keys, unread
from odfa.train import Interrupted

_SEVERAL = {"seed": "seeds=3", "arm": f"arms={DEFAULT_ARMS}"}
"""Key of one run → what a comparison takes instead."""


@dataclass(frozen=True, kw_only=True)
class CompareWords(CompareSettings):
    """Settings of the comparison; those of all its runs are below."""

    run: RunConfig = field(metadata=INLINE)
    """The recipe as light trains it, from which every arm takes its own."""


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="NAME", help="a recipe (see odfa recipes)")
    add_settings(parser)
    parser.add_argument("--run-dir", metavar="DIR", type=place, help="folder of all runs (default: runs/compare-NAME)")


def _listed(words: list[str]) -> str:
    from odfa import recipes

    name, settings = parts_of(words)
    if name is not None:
        tree = apply(CompareWords(run=recipes.whole(name)), settings, heard=False)
        return f"settings ({CUT}):\n\n{listing(tree, without=_SEVERAL)}"
    return f"{listing(CompareSettings())}\n\nThese, and every setting of a recipe:\n  odfa compare RECIPE --help"


def _execute(arguments: Namespace) -> Outcome:
    from odfa import recipes

    recipe = recipes.whole(arguments.recipe)
    _refuse_singles(arguments.settings)
    words = apply(CompareWords(run=recipe), arguments.settings, heard=False)
    _refuse_without_effect(recipe, words, arguments.settings)
    note(f"comparing arms on {words.run.recipe} …")
    try:
        comparison = compare(
            words.run,
            words.arms,
            seeds=words.seeds,
            tries=words.tries,
            try_steps=words.try_steps,
            jobs=words.jobs,
            out_dir=arguments.run_dir or _default_run_dir(words.run, recipe),
            note=note,
        )
    except Interrupted as stopped:
        advice = "what is finished is kept: go on with the same odfa compare command"
        raise Interrupted(stopped.step, stopped.run_dir, advice=advice) from stopped
    return Outcome(json=comparison.to_json(), show=lambda: _show(comparison))


def _refuse_singles(settings: list[str]) -> None:
    """A comparison has several arms and seeds; a recipe's own settings have one of each."""
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key in _SEVERAL:
            raise ConfigError(f"compare runs several of them: expected {_SEVERAL[key]}, got {setting}")


def _refuse_without_effect(recipe: RunConfig, words: CompareWords, settings: list[str]) -> None:
    """Refuse a setting that changes the recipe but none of its arms: it would have no effect."""
    for setting in settings:
        others = [other for other in settings if other is not setting]
        try:
            without = apply(CompareWords(run=recipe), others, heard=False).run
        except ConfigError:  # the others are refused without this one, so it has an effect
            continue
        before, after = trees(without, words.arms), trees(words.run, words.arms)
        if words.run == without or any(_changes(before[arm], after[arm]) for arm in words.arms):
            continue
        why = {why for tree in after.values() for path, why in unread(tree).items() if _matches(path, setting)}
        raise ConfigError(
            f"{setting}: none of the arms {','.join(words.arms)} "
            f"{f'reads it: {min(why)}' if why else 'has this setting'}; leave it out"
        )


def _changes(before: RunConfig, after: RunConfig) -> bool:
    """Whether anything differs that the second tree reads."""
    then, now = keys(before), keys(after)
    changed = {path for path, key in now.items() if path not in then or type(then[path].value) is not type(key.value)}
    changed |= {path for path, key in now.items() if key.settings is None and then.get(path, key).value != key.value}
    return bool(changed - set(unread(after)))


def _matches(path: str, setting: str) -> bool:
    """Whether the key of `setting`, perhaps cut to its last parts, may mean `path`."""
    key = setting.partition("=")[0].strip()
    return path == key or path.endswith(f".{key}")


def _default_run_dir(config: RunConfig, recipe: RunConfig) -> Path:
    """runs/compare-<recipe>, and where settings differ from the recipe's, eight digits of their digest."""
    mark = "" if config == recipe else f"-{digest(config)[:8]}"
    return Path("runs") / f"compare-{config.recipe}{mark}"


def _show(comparison: Comparison) -> None:
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
        more=_listed,
    ),
    configure=_configure,
    execute=_execute,
)
