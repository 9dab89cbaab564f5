"""Which classes a slot takes: those that its room defines, entry points of other packages, `package.module:Name`."""

import dataclasses
import difflib
import importlib
import inspect
from importlib.metadata import entry_points
from typing import TypeVar, cast

from odfa.errors import ConfigError
from odfa.settings.base import Settings
from odfa.settings.refusals import shown
from odfa.settings.rooms import kinds_of, told_kinds

_S = TypeVar("_S", bound=Settings)
TYPE = "type"
"""Key in JSON that tells the kind."""
_NEAR, _NEAR_KIND = 0.7, 0.6
"""Share of equal letters from which on a setting may have been meant; lower among the few kinds of a slot."""


def words_of(slot: type[Settings]) -> list[str]:
    """Every word that the slot takes: kinds, presets, and what other packages registered."""
    presets = [word for kind in kinds_of(slot).values() for word in kind.presets]
    registered = sorted(point.name for point in entry_points(group=slot.registered)) if slot.registered else []
    return list(dict.fromkeys([*kinds_of(slot), *presets, *registered]))


def registered_as(group: str, word: str) -> str | None:
    """`package.module:Name` that a package registered under a word of a group of entry points; None: nobody did.

    Raises:
        ConfigError: several packages did, with different objects.
    """
    points = {point.value: point for point in entry_points(group=group) if point.name == word}
    if len(points) > 1:
        owners = sorted(f"{point.dist.name if point.dist else '?'}: {value}" for value, point in points.items())
        raise ConfigError(
            f"{word!r} is registered more than once ({', '.join(owners)}); name the one you mean package.module:Name"
        )
    return next(iter(points), None)


def named(slot: type[_S], word: str, *, before: Settings | None = None) -> _S:
    """The settings that a word of the command line names.

    A kind keeps of `before` what both inherit from a declaration they share, and starts from its defaults elsewhere;
    presets, functions and instances are taken as they are.

    Raises:
        ConfigError: there is no such kind, or what is named is no settings of this slot.
    """
    found = _found(slot, word)
    if inspect.isclass(found):
        return cast(_S, _made(found, word, before))
    made = found() if callable(found) else found
    if not isinstance(made, slot):
        raise ConfigError(f"{word}: expected {told_kinds(slot)}, got {shown(made)}")
    return made


def of_slot(slot: type[_S], word: str, *, before: Settings | None = None) -> _S:
    """`named`, where the class that a word names is compared with the slot too.

    Raises:
        ConfigError: what `named` raises, or the class belongs to another slot.
    """
    made: object = named(slot, word, before=before)
    if not isinstance(made, slot):
        raise ConfigError(f"{word}: expected {told_kinds(slot)}, got {shown(made)}")
    return made


def class_of(slot: type[_S], tag: object, key: str) -> type[_S]:
    """The class that `tag_of` named; nothing is called.

    Raises:
        ConfigError: there is none, or it is no settings class of this slot.
    """
    if not isinstance(tag, str):
        raise ConfigError(f"{key}: expected {TYPE!r} with one of {', '.join(kinds_of(slot))}, got {shown(tag)}")
    found = kinds_of(slot).get(tag) or (load(tag) if ":" in tag else None)
    if not (inspect.isclass(found) and issubclass(found, slot)):
        raise ConfigError(f"{key}: expected one of {', '.join(kinds_of(slot))}, got {shown(tag)}")
    return found


def tag_of(settings: Settings) -> str:
    """The word that JSON holds: the kind, or `package.module:Name` for a class from another package."""
    kind = type(settings)
    if kind.kind and kind.room and kinds_of(kind).get(kind.kind) is kind:
        return kind.kind
    return f"{kind.__module__}:{kind.__qualname__}"


def word_of(settings: Settings) -> str:
    """The word of a command line that names these settings: a preset where they are one, else as `tag_of`."""
    presets = type(settings).presets.items()
    return next((word for word, make in presets if make() == settings), tag_of(settings))


def load(name: str) -> object:
    """The object that `package.module:Name` names.

    Raises:
        ConfigError: it cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(
            f"{shown(name)} cannot be imported ({told}); expected package.module:Name of an installed package, or of a "
            "file in a folder of PYTHONPATH"
        ) from error
    return found


def near(word: str, known: list[str], *, cutoff: float = _NEAR) -> list[str]:
    """Up to three words like this one, the nearest first, then those that it is a part of (rate of learning_rate)."""
    whole = [one for one in known if word in one.split("_")]
    return list(dict.fromkeys([*difflib.get_close_matches(word, known, n=3, cutoff=cutoff), *whole]))[:3]


def _found(slot: type[Settings], word: str) -> object:
    if ":" in word:
        found = load(word)
        return _adopted(slot, word, found)
    kinds = kinds_of(slot)
    if word in kinds:
        return kinds[word]
    for kind in kinds.values():
        if word in kind.presets:
            return kind.presets[word]
    place = registered_as(slot.registered, word) if slot.registered else None
    if place is not None:
        return _adopted(slot, word, load(place))
    known = words_of(slot)
    expected = " or ".join(near(word, known, cutoff=_NEAR_KIND) or known)
    raise ConfigError(f"expected {expected}, or package.module:Name, got {shown(word)}")


def _adopted(slot: type[Settings], word: str, found: object) -> object:
    """`found`, or the settings of the first kind that takes it on."""
    taken = (kind.adopted(word, found) for kind in kinds_of(slot).values())
    return next((settings for settings in taken if settings is not None), found)


def _made(kind: type[object], word: str, before: Settings | None) -> Settings:
    if not (inspect.isclass(kind) and issubclass(kind, Settings)):
        raise ConfigError(f"{word}: expected a settings class (odfa.settings.Settings), got {shown(kind)}")
    kept = {} if before is None else {name: getattr(before, name) for name in _shared(kind, type(before))}
    try:
        return kind(**kept)
    except TypeError as error:
        raise ConfigError(f"{word}: {error}; give every setting of {kind.__name__} a default") from error


def _shared(kind: type[Settings], other: type[Settings]) -> list[str]:
    """Fields that both classes inherit from one declaration."""
    ours, theirs = _declared(kind), _declared(other)
    return [name for name, owner in ours.items() if theirs.get(name) is owner]


def _declared(kind: type[Settings]) -> dict[str, type]:
    names = {field.name for field in dataclasses.fields(kind)}
    owners: dict[str, type] = {}
    for base in reversed(kind.__mro__):
        owners |= dict.fromkeys(names & set(vars(base).get("__annotations__", {})), base)
    return owners
