"""Runs as plain functions that return a config, by name; each has a `_tiny` sibling that takes seconds.

Every module `odfa.tasks.NAME.recipes` is looked through; a function that is marked with `recipe` is listed under its
own name. A function of another package that returns a `RunConfig` needs no mark: it is named package.module:function.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import odfa.tasks
from odfa.errors import ConfigError
from odfa.settings import load, shown
from odfa.train.config import RunConfig

Make = Callable[[], RunConfig]
_ROW = "__recipe__"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A row of `odfa recipes`."""

    make: Make
    """Returns the config."""
    source: str
    """Where the data come from."""
    size: str
    """Samples and network."""
    expected_time: str
    """Training time of one run on two cores, from backpropagation to the twin."""


def recipe(*, source: str, size: str, expected_time: str) -> Callable[[Make], Make]:
    """Mark a function that returns a config; the words are its row in `odfa recipes`."""

    def marked(make: Make) -> Make:
        setattr(make, _ROW, Recipe(make=make, source=source, size=size, expected_time=expected_time))
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


def get(name: str) -> RunConfig:
    """The config of a recipe: its name, or package.module:function.

    Raises:
        ConfigError: there is no such recipe (the message gives the nearest names), it cannot be imported, or it returns
            something else.
    """
    if ":" in name:
        return _outside(name)
    recipes = listed()
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=3) or list(recipes)
        raise ConfigError(f"unknown recipe {shown(name)}; did you mean {' or '.join(near)}?")
    return recipes[name].make()


def _outside(name: str) -> RunConfig:
    made = load(name)
    try:
        made = made() if callable(made) else made
    except TypeError as error:
        raise ConfigError(f"recipe {name}: expected a function without arguments ({error})") from error
    if not isinstance(made, RunConfig):
        raise ConfigError(f"recipe {name}: expected a function that returns a RunConfig, got {shown(made)}")
    return made
