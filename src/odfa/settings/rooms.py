"""The kinds of a slot that this package defines: the classes in the modules of the slot's room."""

import importlib
import inspect
import pkgutil
from collections.abc import Hashable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, cast

_T = TypeVar("_T")


def kinds_of(slot: type[_T]) -> Mapping[str, type[_T]]:
    """Word → class, for every kind of the slot that this package defines, in alphabetical order."""
    return cast(Mapping[str, type[_T]], _defined(cast(Hashable, _root(slot))))


def told_kinds(slot: type) -> str:
    """What a slot takes, in words."""
    return f"settings of the kind {slot.__name__} ({', '.join(kinds_of(slot))})"


@cache
def _defined(slot: Any) -> Mapping[str, type]:
    # All modules of the room are imported, once: a kind that nobody imported would be an unknown word on the command
    # line. Classes count where they are defined, or a second module that imports one would list it again.
    found: dict[str, type] = {}
    room = importlib.import_module(slot.room)
    modules = [slot.room]
    modules += [info.name for info in pkgutil.walk_packages(getattr(room, "__path__", ()), f"{slot.room}.")]
    for module_name in modules:
        for value in vars(importlib.import_module(module_name)).values():
            ours = inspect.isclass(value) and issubclass(value, slot) and value.__module__ == module_name
            if ours and value.kind:
                found[value.kind] = value
    return MappingProxyType(dict(sorted(found.items())))


def _root(kind: type) -> type:
    """The slot that a class belongs to."""
    return next(base for base in kind.__mro__ if "room" in vars(base) and vars(base)["room"])
