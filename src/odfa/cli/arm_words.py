"""Words of a command that trains several arms of a recipe: what belongs to all, what to one, what has no effect."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from odfa.arms import DEFAULT_ARMS, by_rule, trees
from odfa.cli.command import say
from odfa.errors import ConfigError
from odfa.lab import CompareSettings
from odfa.session import RunConfig
from odfa.settings import INLINE, apply, changes, digest, keys, resolved, unread
from odfa.train import Interrupted

SEVERAL = {"seed": "seeds=3", "arm": f"arms={DEFAULT_ARMS}"}
"""Key of one run → what a comparison takes instead."""


@dataclass(frozen=True, kw_only=True)
class CompareWords(CompareSettings):
    """Settings of the comparison; those of all its runs are below."""

    run: RunConfig = field(metadata=INLINE)
    """The recipe as light trains it, from which every arm takes its own."""


_W = TypeVar("_W", bound=CompareWords)


def refuse_singles(settings: Sequence[str], instead: Mapping[str, str]) -> None:
    """Refuse settings that a command with several runs takes in another form.

    Args:
        instead: key of a run → what is written instead.

    Raises:
        ConfigError: the first of them.
    """
    for setting in settings:
        for path, expected in instead.items():
            if matches(path, setting):
                raise ConfigError(f"several runs differ in it, or follow from it: expected {expected}, got {setting}")


def common(tree: _W, settings: Sequence[str]) -> _W:
    """The comparison and the recipe as the words change them, those that only rules of single arms know left out.

    Raises:
        ConfigError: what `apply` raises; no arm knows a key either.
    """
    paths = resolved(tree, settings)
    words = apply(tree, [word for word in settings if paths[word] is not None], heard=False)
    theirs = [word for word in settings if paths[word] is None]
    known = [resolved(made, theirs) for made in trees(words.run, words.arms).values()]
    if any(all(of_arm[word] is None for of_arm in known) for word in theirs):
        apply(tree, settings, heard=False)  # says what is like the unknown key
    return words


def of_arms(tree: CompareWords, settings: Sequence[str]) -> dict[str, RunConfig]:
    """Arm → its tree of the changed recipe. A setting of a rule, and one that the recipe does not know, is applied to
    each arm that has it; no word changes what an arm's name settles.

    Raises:
        ConfigError: what `apply` raises.
    """
    words = common(tree, settings)
    return trees(words.run, words.arms, beside(tree, settings))


def beside(tree: CompareWords, settings: Sequence[str]) -> list[str]:
    """The words that are applied to each arm that has them, instead of to the recipe; their keys in full."""
    paths = resolved(tree, settings)
    return [word if path is None else f"{path}={word.partition('=')[2]}" for word, path in paths.items() if _own(path)]


def _own(path: str | None) -> bool:
    return path is None or path.startswith("rule.")


def refuse_without_effect(tree: CompareWords, words: CompareWords, settings: Sequence[str]) -> None:
    """Refuse a setting that changes the recipe but none of its arms: it would have no effect.

    Args:
        tree: the usual settings.
        words: what `common` makes of them.

    Raises:
        ConfigError: the first such setting.
    """
    paths, after = resolved(tree, settings), of_arms(tree, settings)
    for setting in settings:
        others = [other for other in settings if other is not setting]
        try:
            without, before = common(tree, others), of_arms(tree, others)
        except ConfigError:  # the others are refused without this one, so it has an effect
            continue
        same = words.run == without.run and paths[setting] is not None
        if same or without.arms != words.arms or any(changes(before[arm], after[arm]) for arm in words.arms):
            continue
        arms = ",".join(words.arms)
        why = {why for tree in after.values() for path, why in unread(tree).items() if matches(path, setting)}
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


def matches(path: str, setting: str) -> bool:
    """Whether the key of `setting`, perhaps cut to its last parts, may mean `path`."""
    key = setting.partition("=")[0].strip()
    return path == key or path.endswith(f".{key}")


def told_apart(*parts: RunConfig | str) -> str:
    """Eight digits that tell settings apart, for the name of a folder."""
    told = (part if isinstance(part, str) else digest(part) for part in parts)
    return hashlib.sha256("".join(told).encode()).hexdigest()[:8]


@contextmanager
def kept(command: str) -> Iterator[None]:
    """A run that a signal stops inside says how to go on: by the same `command`.

    Raises:
        Interrupted: the run was stopped.
    """
    try:
        yield
    except Interrupted as stopped:
        advice = f"what is finished is kept: go on with the same {command} command"
        raise Interrupted(stopped.step, stopped.run_dir, advice=advice) from stopped


def say_electronic(parts: Mapping[str, str]) -> None:
    """Print what of the learning is electronic, a line for each arm."""
    say("What is electronic:")
    widest = max(map(len, parts))
    for arm, part in parts.items():
        say(f"  {arm:<{widest}}  {part}", indent=widest + 4)
