"""Runs as plain functions that return a config, by name; each has a `_tiny` sibling that takes seconds.

Every module `odfa.tasks.NAME.recipes` is looked through; a function that is marked with `recipe` is listed under its
own name. A function of another package that returns a `RunConfig` needs no mark: it is named package.module:function.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import odfa.tasks
from odfa.arms import DEFAULT_ARM, name_of
from odfa.arms import arm as arm_of
from odfa.errors import ConfigError
from odfa.session.config import RunConfig
from odfa.settings import apply, load, shown

Make = Callable[[], RunConfig]
_ROW = "__recipe__"
ARM = "arm"
"""The key of the word that names the arm, `arm=NAME`, among words that change settings."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A row of `odfa recipes`."""

    make: Make
    """Returns the config with an optical projection, from which every arm makes its own."""
    source: str
    """Where the data come from."""
    size: str
    """Number of samples, and the network."""
    expected_time: str
    """Training time of one run on two cores, from backpropagation to the twin."""
    arm: str = DEFAULT_ARM
    """The arm that is trained unless one is named."""


def recipe(*, source: str, size: str, expected_time: str, arm: str = DEFAULT_ARM) -> Callable[[Make], Make]:
    """Mark a function that returns a config; the words are its row in `odfa recipes`."""

    def marked(make: Make) -> Make:
        setattr(make, _ROW, Recipe(make=make, source=source, size=size, expected_time=expected_time, arm=arm))
        return make

    return marked


@cache
def listed() -> Mapping[str, Recipe]:
    """Name → recipe, task by task in alphabetical order, within one as its module has them."""
    found = {}
    for info in sorted(pkgutil.iter_modules(odfa.tasks.__path__), key=lambda info: info.name):
        name = f"odfa.tasks.{info.name}.recipes"
        if info.ispkg and importlib.util.find_spec(name) is not None:
            for make in vars(importlib.import_module(name)).values():
                row = getattr(make, _ROW, None)
                if isinstance(row, Recipe) and make.__module__ == name:
                    found[make.__name__] = row
    return MappingProxyType(found)


def get(name: str, arm: str | None = None) -> RunConfig:
    """The config of a recipe under one arm: a name that is listed, or package.module:function.

    Args:
        arm: a word of `odfa.arms`; None: the recipe's usual one, for functions of other packages the config as it is.

    Raises:
        ConfigError: there is no such recipe (the message gives the nearest names) or arm, it cannot be imported, or it
            returns something else.
    """
    usual = None if ":" in name else listed()[_known(name)].arm
    chosen = arm or usual
    return whole(name) if chosen is None else arm_of(whole(name), chosen)


def whole(name: str) -> RunConfig:
    """The config of a recipe with its optical projection, before any arm changes it.

    Raises:
        ConfigError: what `get` raises.
    """
    return _outside(name) if ":" in name else listed()[_known(name)].make()


def worded(name: str, words: Sequence[str]) -> tuple[str, RunConfig]:
    """The arm and the config that a recipe's name and `key=value` words describe; `arm=` names the arm.

    Raises:
        ConfigError: what `get` and `odfa.settings.apply` raise.
    """
    arms = [word.partition("=")[2].strip() for word in words if word.partition("=")[0].strip() == ARM]
    usual = get(name, arms[-1] if arms else None)
    config = apply(usual, [word for word in words if word.partition("=")[0].strip() != ARM])
    return (arms[-1] if arms else name_of(usual)), config


def _known(name: str) -> str:
    recipes = listed()
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=3) or list(recipes)
        raise ConfigError(f"unknown recipe {shown(name)}; did you mean {' or '.join(near)}?")
    return name


def _outside(name: str) -> RunConfig:
    made = load(name)
    try:
        made = made() if callable(made) else made
    except TypeError as error:
        raise ConfigError(f"recipe {name}: expected a function without arguments ({error})") from error
    if not isinstance(made, RunConfig):
        raise ConfigError(f"recipe {name}: expected a function that returns a RunConfig, got {shown(made)}")
    return made
