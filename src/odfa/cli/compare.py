"""`odfa compare`: arms side by side on one recipe."""

import hashlib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from odfa.arms import DEFAULT_ARMS, by_rule, trees
from odfa.cli.command import Command, Outcome, note, place, print_table, say
from odfa.cli.help import CUT, Help, add_settings, listing, parts_of
from odfa.errors import ConfigError
from odfa.lab import CompareSettings, Comparison, compare
from odfa.session import RunConfig
from odfa.settings import INLINE, apply, changes, digest, keys, resolved, unread
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
        tree = _common(recipes.whole(name), settings)
        return f"settings ({CUT}):\n\n{listing(tree, without=_SEVERAL)}"
    return f"{listing(CompareSettings())}\n\nThese, and every setting of a recipe:\n  odfa compare RECIPE --help"


def _execute(arguments: Namespace) -> Outcome:
    from odfa import recipes

    recipe = recipes.whole(arguments.recipe)
    _refuse_singles(arguments.settings)
    words = _common(recipe, arguments.settings)
    configs = _of_arms(recipe, arguments.settings)
    _refuse_without_effect(recipe, words, arguments.settings)
    note(f"comparing arms on {words.run.recipe} …")
    try:
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


def _common(recipe: RunConfig, settings: list[str]) -> CompareWords:
    """The comparison and the recipe as the words change them, those that only rules of single arms know left out.

    Raises:
        ConfigError: what `apply` raises; no arm knows a key either.
    """
    tree = CompareWords(run=recipe)
    paths = resolved(tree, settings)
    words = apply(tree, [word for word in settings if paths[word] is not None], heard=False)
    theirs = [word for word in settings if paths[word] is None]
    known = [resolved(made, theirs) for made in trees(words.run, words.arms).values()]
    if any(all(of_arm[word] is None for of_arm in known) for word in theirs):
        apply(tree, settings, heard=False)  # says what is like the unknown key
    return words


def _of_arms(recipe: RunConfig, settings: list[str]) -> dict[str, RunConfig]:
    """Arm → its tree of the changed recipe. A setting of a rule, and one that the recipe does not know, is applied to
    each arm that has it; no word changes what an arm's name settles.

    Raises:
        ConfigError: what `apply` raises.
    """
    tree = CompareWords(run=recipe)
    paths = resolved(tree, settings)
    own = [word if path is None else f"{path}={word.partition('=')[2]}" for word, path in paths.items() if _own(path)]
    words = _common(recipe, settings)
    return trees(words.run, words.arms, own)


def _own(path: str | None) -> bool:
    return path is None or path.startswith("rule.")


def _refuse_without_effect(recipe: RunConfig, words: CompareWords, settings: list[str]) -> None:
    """Refuse a setting that changes the recipe but none of its arms: it would have no effect."""
    paths, after = resolved(CompareWords(run=recipe), settings), _of_arms(recipe, settings)
    for setting in settings:
        others = [other for other in settings if other is not setting]
        try:
            without, before = _common(recipe, others), _of_arms(recipe, others)
        except ConfigError:  # the others are refused without this one, so it has an effect
            continue
        same = words.run == without.run and paths[setting] is not None
        if same or without.arms != words.arms or any(changes(before[arm], after[arm]) for arm in words.arms):
            continue
        arms = ",".join(words.arms)
        why = {why for tree in after.values() for path, why in unread(tree).items() if _matches(path, setting)}
        if why:
            raise ConfigError(f"{setting}: none of the arms {arms} reads it: {min(why)}; leave it out")
        raise ConfigError(f"{setting}: {_why_not(setting, paths[setting], after)}")


def _why_not(setting: str, path: str | None, after: Mapping[str, RunConfig]) -> str:
    """Why a setting changes none of the arms."""
    arms, word = ",".join(after), setting.partition("=")[2].strip()
    if path == "rule":
        return (
            f"the arms {arms} have rules of their own, or have this one already; name an arm by this rule, such as "
            f"{by_rule(next(iter(after.values())), word)}, among arms= instead"
        )
    if path is not None and any(path in keys(tree) for tree in after.values()):
        return f"the arms {arms} settle this by their names, or have it so already; leave it out"
    return f"none of the arms {arms} has this setting; leave it out"


def _matches(path: str, setting: str) -> bool:
    """Whether the key of `setting`, perhaps cut to its last parts, may mean `path`."""
    key = setting.partition("=")[0].strip()
    return path == key or path.endswith(f".{key}")


def _default_run_dir(recipe: RunConfig, words: CompareWords, configs: Mapping[str, RunConfig]) -> Path:
    """runs/compare-<recipe>, and where settings differ from the recipe's, eight digits of their digest."""
    mark = "" if words.run == recipe else f"-{digest(words.run)[:8]}"
    if configs != trees(words.run, words.arms):
        mark += f"-{hashlib.sha256(''.join(map(digest, configs.values())).encode()).hexdigest()[:8]}"
    return Path("runs") / f"compare-{words.run.recipe}{mark}"


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
