"""`key=value`: words of a command line applied to a tree of settings."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from odfa.errors import ConfigError
from odfa.settings.base import Settings
from odfa.settings.fields import hints_of
from odfa.settings.kinds import near, of_slot
from odfa.settings.refusals import SettingError, shown
from odfa.settings.rooms import kinds_of
from odfa.settings.tree import FEW, Key, inline_fields, keys, unread
from odfa.settings.values import from_text

_S = TypeVar("_S", bound=Settings)


def apply(config: _S, overrides: Iterable[str], *, heard: bool = True) -> _S:
    """Copy of `config` with overrides such as `optimizer.learning_rate=1e-3`, `encoder=sampled` or `opu=ideal`.

    A key is a dotted path, or the end of one if only one path ends so. Words that choose a kind come first, from the
    root of the tree outwards, whatever their order: the others then set what the chosen kinds have.

    Args:
        heard: refuse a change that nothing reads in the tree that comes of it.

    Raises:
        ConfigError: an unknown or ambiguous key, one that is fixed or given twice, a value of the wrong type or out of
            range, a change without effect.
    """
    given: dict[str, str] = {}
    config, words = _with_choices(config, [_split(override) for override in overrides], given)
    known = before = keys(config)
    waiting = [(_resolve(config, known, key), text) for key, text in words]
    for path, text in waiting:
        _enter(given, path, text)
    while waiting:
        refused: list[tuple[tuple[str, str], SettingError]] = []
        for path, text in waiting:
            try:
                config = _replaced(config, path.split("."), _value(known[path], text, path))
            except SettingError as error:  # two settings may be valid only together: once more after the others
                refused.append(((path, text), error))
        if len(refused) == len(waiting):
            raise refused[0][1]
        waiting = [word for word, _ in refused]
    if heard:
        _refuse_unread(config, before)
    return config


def resolved(config: Settings, overrides: Iterable[str]) -> dict[str, str | None]:
    """Word → dotted path that it sets in `config` once the words that choose kinds are applied; None: an unknown key.

    Raises:
        ConfigError: a key that is ambiguous or chosen twice, or a kind that there is not.
    """
    words = {override: _split(override) for override in overrides}
    chosen: dict[str, str] = {}
    tree, waiting = _with_choices(config, list(words.values()), chosen)
    known, paths = keys(tree), {}
    for override, (key, text) in words.items():
        if (key, text) in waiting:
            paths[override] = _resolve(tree, known, key) if _matches(known, key) else None
        else:
            paths[override] = next(path for path in chosen if path == key or path.endswith(f".{key}"))
    return paths


def _with_choices(
    config: _S, waiting: list[tuple[str, str]], given: dict[str, str]
) -> tuple[_S, list[tuple[str, str]]]:
    """The tree with every kind that words choose, whose paths are entered in `given`, and the words that are left."""
    waiting = list(waiting)
    while choice := _next_choice(config, waiting):
        path, word = choice
        _enter(given, path, word[1])
        waiting.remove(word)
        config = _chosen(config, path, keys(config)[path], word[1])
    return config, waiting


def _enter(given: dict[str, str], path: str, text: str) -> None:
    """Of two words for one setting, only one could count."""
    if path in given:
        raise ConfigError(f"{path}: expected once, got {shown(given[path])} and {shown(text)}; leave one out")
    given[path] = text


def _refuse_unread(config: Settings, before: Mapping[str, Key]) -> None:
    """A change that nothing reads would be made in vain."""
    now = keys(config)
    for path, why in unread(config).items():
        if path in before and path in now and now[path].value != before[path].value:
            raise SettingError(path, f"{why}; leave it out")


def _split(override: str) -> tuple[str, str]:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"expected key=value, got {shown(override)}")
    return key.strip(), text.strip()


def _next_choice(config: Settings, waiting: list[tuple[str, str]]) -> tuple[str, tuple[str, str]] | None:
    """Of the words that choose what stands in a part of the tree, the one nearest to the root."""
    known = keys(config)
    found = []
    for word in waiting:
        matches = _matches(known, word[0])
        if len(matches) == 1 and known[matches[0]].settings is not None:
            found.append((matches[0].count("."), matches[0], word))
    return min(found, key=lambda choice: choice[0])[1:] if found else None


def _chosen(config: _S, path: str, key: Key, text: str) -> _S:
    if key.optional and text.lower() == "none":
        made = None
    elif key.slot is not None:
        try:
            made = of_slot(key.slot, text, before=key.value)
        except SettingError as error:
            raise SettingError(f"{path}.{error.key}", error.complaint) from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    elif text.lower() == "default" and key.settings is not None:
        made = key.settings()
    else:
        words = "default or none" if key.optional else "default"
        raise SettingError(path, f"expected {words} (its settings are {path}.NAME=VALUE), got {shown(text)}")
    return _replaced(config, path.split("."), made)


def _value(key: Key, text: str, path: str) -> object:
    if key.fixed:
        raise ConfigError(f"{path} is settled by the recipe, got {shown(text)}; name another recipe instead")
    return from_text(text, key.hint, path)


def _replaced(config: _S, path: list[str], value: object) -> _S:
    name, rest = path[0], path[1:]
    for inline in inline_fields(config):
        part = getattr(config, inline)
        if name in keys(part):
            return config.changed(inline, _replaced(part, path, value))
    if rest:
        try:
            value = _replaced(getattr(config, name), rest, value)
        except SettingError as error:
            raise error.under(name) from error
    return config.changed(name, value)


def _matches(known: Mapping[str, Key], key: str) -> list[str]:
    if key in known:
        return [key]
    return [path for path in known if path.endswith("." + key)] if key else []


def _resolve(config: Settings, known: Mapping[str, Key], key: str) -> str:
    matches = _matches(known, key)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"{shown(key)} could be {' or '.join(matches)}; write it in full")
    _refuse_absent(config, known, key)
    raise ConfigError(f"unknown setting {shown(key)}; {_elsewhere(known, key) or _near(known, key)}")


def _refuse_absent(config: Settings, known: Mapping[str, Key], key: str) -> None:
    """A key of a part that is none because nothing would read it."""
    prefix, _, leaf = key.rpartition(".")
    for path, why in unread(config).items():
        place = known.get(path)
        if place is None or place.value is not None or place.settings is None:
            continue
        kinds = kinds_of(place.slot).values() if place.slot else [place.settings]
        if f"{prefix}.".startswith(f"{path}.") or (not prefix and any(_has(kind, leaf) for kind in kinds)):
            raise SettingError(key, f"{why}; leave it out")


def _elsewhere(known: Mapping[str, Key], key: str) -> str:
    """The other kinds that have such a setting, where what is chosen has not."""
    prefix, _, leaf = key.rpartition(".")
    found: list[str] = []
    meant = _matches(known, prefix)  # what is written in front of the last part may name the place
    for path, place in known.items():
        if (
            place.slot is None
            or (meant and path not in meant)
            or (place.value is not None and _has(type(place.value), leaf))
        ):
            continue
        found += [f"{path}={word}" for word, kind in kinds_of(place.slot).items() if _has(kind, leaf)]
    return f"these have it: {', '.join(found[:4])}" if found else ""


def _has(kind: type[Settings], leaf: str) -> bool:
    """Whether a kind, or a part that it always has, has a setting of this name."""
    parts = [Key(hint=hint, value=None, fixed=False) for hint in hints_of(kind).values()]
    inner = [part.settings for part in parts if part.settings is not None and part.slot is None]
    return leaf in hints_of(kind) or any(_has(part, leaf) for part in inner)


def _near(known: Mapping[str, Key], key: str) -> str:
    """Settings that may have been meant, or those of the part that the key names."""
    free = [path for path, place in known.items() if not place.fixed]
    prefix, _, leaf = key.rpartition(".")
    parts = tuple(f"{part}." for part in _matches(known, prefix))
    inside = [path for path in free if path.startswith(parts)]
    elsewhere = [path for path in free if path.endswith(f".{leaf}") or path == leaf]
    meant = _alike(inside, key) or (_alike(elsewhere, key) if inside else _alike(free, key))
    if meant:
        return f"did you mean {' or '.join(meant)}?"
    return f"settings: {_first(inside or free)}"


def _alike(paths: list[str], key: str) -> list[str]:
    """Paths whose last part is like that of `key`; of several that end alike, one."""
    ends: dict[str, list[str]] = {}
    for path in paths:
        ends.setdefault(path.rpartition(".")[2], []).append(path)
    # those that are near as a whole, else the first that is declared
    return [(near(key, ends[word]) or ends[word])[0] for word in near(key.rpartition(".")[2], list(ends))]


def _first(paths: list[str]) -> str:
    """All of a few settings; of many those of the tree's root, up to a dozen, and how many there are besides."""
    if len(paths) <= FEW:
        return ", ".join(paths)
    told = [path for path in paths if "." not in path][:FEW] or paths[:FEW]
    return f"{', '.join(told)} and {len(paths) - len(told)} more (--help lists them)"
