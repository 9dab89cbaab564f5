"""Runs as plain functions that return a config, by name; each has a `_tiny` sibling that takes seconds.

Every module `odfa.tasks.NAME.recipes` is imported, and each function in it that is decorated with `recipe` is listed
under its own name. A function of another package that returns a `RunConfig` needs no decorator: it is named
package.module:function, or by the word under which the package registers it in the entry points `odfa.recipes`.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType

import odfa.tasks
from odfa.arms import DEFAULT_ARM, NOBODYS, name_of, stray
from odfa.arms import arm as arm_of
from odfa.errors import ConfigError
from odfa.session.config import RunConfig
from odfa.settings import apply, load, registered_as, shown

Make = Callable[[], RunConfig]
_ROW = "__recipe__"
"""Attribute of a decorated function that holds its `Recipe`."""
GROUP = "odfa.recipes"
"""Entry points of other packages' recipes."""
ARM = "arm"
"""Key of the command line that names the arm; it is no setting of the run."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe and what `odfa recipes` prints about it."""

    make: Make
    """Returns the config as an OPU trains it; each arm makes its own config from this one."""
    source: str
    """Where the data come from."""
    size: str
    """Number of samples, and the network."""
    expected_time: str
    """Training time of one run on two cores: from that of backpropagation to that of the twin."""
    arm: str = DEFAULT_ARM
    """Arm that is trained if the user names none."""


def recipe(*, source: str, size: str, expected_time: str, arm: str = DEFAULT_ARM) -> Callable[[Make], Make]:
    """Decorate a function that returns a config, so that `odfa recipes` lists it with these words."""

    def marked(make: Make) -> Make:
        setattr(make, _ROW, Recipe(make=make, source=source, size=size, expected_time=expected_time, arm=arm))
        return make

    return marked


@cache
def listed() -> Mapping[str, Recipe]:
    """Name → recipe; tasks in alphabetical order, the recipes of a task in the order of their module."""
    found = {}
    for info in sorted(pkgutil.iter_modules(odfa.tasks.__path__), key=lambda info: info.name):
        name = f"odfa.tasks.{info.name}.recipes"
        if info.ispkg and importlib.util.find_spec(name) is not None:
            for make in vars(importlib.import_module(name)).values():
                row = getattr(make, _ROW, None)
                # a module of recipes may import those of another task: only those it defines itself are its own
                if isinstance(row, Recipe) and make.__module__ == name:
                    found[make.__name__] = row
    return MappingProxyType(found)


def registered() -> Mapping[str, str]:
    """Name → package and package.module:function, of recipes that other packages register under words of their own."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {p.name: f"{p.dist.name if p.dist else '?'}: {p.value}" for p in points if p.name not in listed()}


def get(name: str, arm: str | None = None) -> RunConfig:
    """The config of a recipe under one arm: a name that is listed, or package.module:function.

    Args:
        arm: a word of `odfa.arms`; None: the arm that the recipe names, and for functions of other packages the config
            as the function returns it.

    Raises:
        ConfigError: there is no such recipe (the message gives the nearest names) or arm, it cannot be imported, or it
            returns something else.
    """
    run = whole(name)
    chosen = arm or (listed()[name].arm if name in listed() else None)
    return run if chosen is None else arm_of(run, chosen)


def whole(name: str) -> RunConfig:
    """The config that the recipe's function returns, before an arm changes it.

    Raises:
        ConfigError: what `get` raises.
    """
    place = name if ":" in name else None if name in listed() else registered_as(GROUP, name)
    return listed()[_known(name)].make() if place is None else _outside(place)


def worded(name: str, words: Sequence[str]) -> tuple[str, RunConfig]:
    """The arm and the config that a recipe's name and `key=value` words describe; `arm=` names the arm.

    Raises:
        ConfigError: two arms, words that make the tree another arm's, and what `get` and `odfa.settings.apply` raise.
    """
    arms = [word.partition("=")[2].strip() for word in words if word.partition("=")[0].strip() == ARM]
    others = [word for word in words if word.partition("=")[0].strip() != ARM]
    if len(arms) > 1:
        raise ConfigError(f"{ARM}: expected once, got {' and '.join(map(shown, arms))}; leave one out")
    usual = get(name, arms[0] if arms else None)
    config = apply(usual, others)
    if not arms:
        return name_of(config), config
    if told := stray(arms[0], usual, config, others, f"{ARM}="):
        raise ConfigError(f"{ARM}={arms[0]}: {told}")
    return arms[0], config


def usual(name: str, arm: str) -> RunConfig:
    """The config of a recipe without further settings, under an arm that `worded` names.

    Raises:
        ConfigError: what `get` raises.
    """
    return get(name, None if arm.startswith(NOBODYS) else arm)


def _known(name: str) -> str:
    recipes = listed()
    if name not in recipes:
        known = [*recipes, *registered()]
        near = difflib.get_close_matches(name, known, n=3) or known
        raise ConfigError(f"unknown recipe {shown(name)}; did you mean {' or '.join(near)}?")
    return name


def _outside(name: str) -> RunConfig:
    made = load(name)
    try:
        made = made() if callable(made) else made
    except TypeError as error:  # most likely the call itself; the message repeats whatever was raised
        raise ConfigError(f"recipe {name}: expected a function without arguments ({error})") from error
    if not isinstance(made, RunConfig):
        raise ConfigError(f"recipe {name}: expected a function that returns a RunConfig, got {shown(made)}")
    return made
