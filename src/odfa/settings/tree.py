"""Trees of settings: their keys, and JSON in both directions."""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from odfa.errors import ConfigError
from odfa.settings.base import Settings
from odfa.settings.fields import hints_of
from odfa.settings.kinds import TYPE, class_of, near, tag_of
from odfa.settings.refusals import SettingError, shown
from odfa.settings.values import from_json, is_optional, without_none

_S = TypeVar("_S", bound=Settings)
FEW = 12
"""Number of names that a message lists."""
Tree = dict[str, Any]
"""Settings as plain JSON values: nested objects by name."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A place in a tree of settings; `value` is what stands there now."""

    hint: Any
    value: Any
    fixed: bool
    """Whether `key=value` may not change it."""

    @property
    def slot(self) -> type[Settings] | None:
        """The slot whose kinds may stand here."""
        kind = self.settings
        return kind if kind is not None and kind.room else None

    @property
    def settings(self) -> type[Settings] | None:
        """The class of the settings that may stand here; None: this is a single value."""
        kind = without_none(self.hint)
        return kind if inspect.isclass(kind) and issubclass(kind, Settings) else None

    @property
    def optional(self) -> bool:
        """Whether none may stand here."""
        return is_optional(self.hint)


def keys(config: Settings) -> dict[str, Key]:
    """Every dotted key of a tree, in order of declaration; parts that hold settings come before what is in them.

    Raises:
        ConfigError: an inline part has a key of its owner.
    """
    found: dict[str, Key] = {}
    for path, key in _walk(config, ""):
        if path in found:
            raise ConfigError(f"{path}: {type(config).__name__} and a part of it both have this key; rename one")
        found[path] = key
    return found


def unread(config: Settings) -> dict[str, str]:
    """Dotted path → why, of every setting in a tree that nothing reads as the tree stands (`Settings.unread`)."""
    found = dict(config.unread())
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        prefix = "" if field.metadata.get("inline") else f"{field.name}."
        if isinstance(value, Settings):
            found |= {f"{prefix}{path}": why for path, why in unread(value).items()}
    return found


def changes(before: Settings, after: Settings) -> bool:
    """Whether anything differs that the second tree reads."""
    then, now = keys(before), keys(after)
    changed = {path for path, key in now.items() if path not in then or type(then[path].value) is not type(key.value)}
    changed |= {path for path, key in now.items() if key.settings is None and then.get(path, key).value != key.value}
    return bool(changed - set(unread(after)))


def to_dict(config: Settings) -> Tree:
    """Plain JSON values: nested objects, each part of a slot with its `type`; lists for tuples, None.

    Raises:
        SettingError: a value of a type that could not be read back.
    """
    plain: Tree = {}
    for name, hint in hints_of(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, Settings):
            kind = without_none(hint)
            tag = {TYPE: tag_of(value)} if kind.room else {}
            plain[name] = tag | to_dict(value)
        else:
            plain[name] = _plain(value)
            from_json(plain[name], hint, name)  # what is written can be read back
    return plain


def from_dict(values: object, kind: type[_S], key: str = "") -> _S:
    """Inverse of `to_dict`; missing keys take their defaults.

    Raises:
        ConfigError: an unknown key, a missing key without default, a value of the wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key or 'config'}: expected an object, got {shown(values)}")
    prefix = f"{key}." if key else ""
    if kind.room:
        kind = class_of(kind, values.get(TYPE), key)
        values = {name: value for name, value in values.items() if name != TYPE}
    hints, arguments = hints_of(kind), {}
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(_unknown(prefix, str(name), kind))
        inner = Key(hint=hints[name], value=None, fixed=False).settings
        if inner is None or (value is None and is_optional(hints[name])):
            arguments[name] = from_json(value, hints[name], prefix + name)
        else:
            arguments[name] = from_dict(value, inner, prefix + name)
    try:
        return kind(**arguments)
    except SettingError as error:
        raise SettingError(prefix + error.key, error.complaint) from error
    except TypeError as error:
        raise ConfigError(f"{key or 'config'}: {error}") from error


def _unknown(prefix: str, name: str, kind: type[Settings]) -> str:
    """What is wrong with a key of JSON that settings of this class do not have."""
    known = list(hints_of(kind))
    which = f", which type {kind.kind or kind.__name__} does not have" if kind.room else ""
    meant = [prefix + one for one in near(name, known)]
    if meant:
        advice = f"did you mean {' or '.join(meant)}?"
    elif len(known) <= FEW:
        advice = f"it has {', '.join(prefix + one for one in known) or 'no settings'}"
    else:
        advice = f"none of the {len(known)} settings of {kind.__name__} has a similar name"
    return f"unknown setting {shown(prefix + name)}{which}; {advice}"


def digest(config: Settings) -> str:
    """SHA-256 of the tree's canonical JSON: equal digests mean equal settings."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def inline_fields(config: Settings) -> list[str]:
    """Fields whose keys stand beside those of `config`, without the field's name."""
    return [field.name for field in dataclasses.fields(config) if field.metadata.get("inline")]


def _walk(config: Settings, prefix: str) -> Iterator[tuple[str, Key]]:
    hints = hints_of(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata.get("inline"):
            yield from _walk(value, prefix)
            continue
        fixed = bool(field.metadata.get("fixed"))
        yield prefix + field.name, Key(hint=hints[field.name], value=value, fixed=fixed)
        if isinstance(value, Settings):
            yield from _walk(value, f"{prefix}{field.name}.")


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
