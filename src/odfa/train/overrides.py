"""`key=value` overrides and JSON, both typed by the dataclasses of `config.py`."""

import dataclasses
import difflib
import hashlib
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from odfa.errors import ConfigError
from odfa.train.config import RunConfig
from odfa.train.config.base import shown

_T = TypeVar("_T")
_INTEGERS = range(-(2**63), 2**63)
FIXED = ("recipe", "task")
"""Settings that a recipe settles itself."""


def apply(config: _T, overrides: Iterable[str]) -> _T:
    """Copy of `config` with overrides such as `optimizer.learning_rate=1e-3`, `seed=1` or `opu=ideal`.

    A key is a dotted path, or the last part of one if only one path ends so.

    Raises:
        ConfigError: an unknown or ambiguous key, one that the recipe itself settles, a value of the wrong type or out
            of range.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, got {shown(override)}")
        known = keys(config)
        path = _resolve(known, key.strip())
        if path in FIXED:
            raise ConfigError(f"{path} is settled by the recipe, got {override!r}; name another recipe instead")
        config = _replace(config, path.split("."), _from_text(text.strip(), known[path], path))
    return config


def keys(config: Any) -> dict[str, Any]:
    """Every dotted key of a config with its type, in order of declaration."""
    return dict(_walk(config, ""))


def to_dict(config: Any) -> dict[str, Any]:
    """Plain JSON values: nested dicts, lists for tuples, None."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def from_dict(values: Mapping[str, Any], config_type: type[_T] = RunConfig) -> _T:  # type: ignore[assignment]
    """Inverse of `to_dict`; missing keys take their defaults.

    Raises:
        ConfigError: an unknown key, a missing key without default, a value of the wrong type or out of range.
    """
    return _build(config_type, values, "")


def digest(config: Any) -> str:
    """SHA-256 of the config's canonical JSON: equal digests mean equal runs."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def _walk(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(type(config))
    for name in (field.name for field in dataclasses.fields(config)):
        hint, value = hints[name], getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def _resolve(known: Mapping[str, Any], key: str) -> str:
    if key in known:
        return key
    matches = [path for path in known if path.endswith("." + key)] if key else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"{key!r} could be {' or '.join(matches)}; write it in full")
    near = _nearest(key, known)
    hint = f"did you mean {near}?" if near else f"settings: {', '.join(known)}"
    raise ConfigError(f"unknown setting {shown(key)}; {hint}")


def _nearest(key: str, known: Iterable[str]) -> str:
    by_leaf = {name: path for path in known for name in (path, path.rpartition(".")[2])}
    close = difflib.get_close_matches(key, by_leaf, n=3, cutoff=0.5) or difflib.get_close_matches(
        key.rpartition(".")[2], by_leaf, n=3, cutoff=0.5
    )
    return " or ".join(dict.fromkeys(by_leaf[name] for name in close))


def _replace(config: _T, path: list[str], value: Any) -> _T:
    if len(path) > 1:
        value = _replace(getattr(config, path[0]), path[1:], value)
    return dataclasses.replace(config, **{path[0]: value})  # type: ignore[type-var]


def _build(config_type: type[_T], values: Mapping[str, Any], prefix: str) -> _T:
    hints = get_type_hints(config_type)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'config'}: expected an object, got {values!r}")
    arguments = {}
    for name, value in values.items():
        if name not in hints:
            near = _nearest(name, hints) or ", ".join(hints)
            raise ConfigError(f"unknown setting {prefix + name!r}; did you mean {near}?")
        choices = [hint for hint in (hints[name], *get_args(hints[name])) if dataclasses.is_dataclass(hint)]
        if choices:
            arguments[name] = _build_inner(value, choices, prefix + name)
        else:
            arguments[name] = _from_json(value, hints[name], prefix + name)
    try:
        return config_type(**arguments)
    except TypeError as error:
        raise ConfigError(f"{prefix.rstrip('.') or 'config'}: {error}") from error


def _build_inner(value: Any, choices: Sequence[Any], key: str) -> Any:
    """The config among `choices` that has the given settings, the first where several have."""
    given = set(value) if isinstance(value, Mapping) else set()
    fits = [hint for hint in choices if given <= set(get_type_hints(hint))]
    return _build((fits or choices)[0], value, f"{key}.")


def _from_text(text: str, hint: Any, key: str) -> Any:
    """The value that `text` spells, for the type `hint`."""
    if _is_optional(hint):
        return None if text.lower() == "none" else _from_text(text, _without_none(hint), key)
    if get_origin(hint) is tuple:
        return _tuple(text.strip("()[] ").rstrip(",").split(","), hint, key, _from_text)
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if hint in (int, float):
        try:
            number = hint(text.strip())
        except ValueError as error:
            raise _wrong(key, hint, text) from error
        return _from_json(number, hint, key)
    return _from_json(text, hint, key)


def _from_json(value: Any, hint: Any, key: str) -> Any:
    """`value` if it fits the type `hint` (an int is accepted for a float, a list for a tuple)."""
    if _is_optional(hint):
        return None if value is None else _from_json(value, _without_none(hint), key)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return _tuple(value, hint, key, _from_json)
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint and (hint is not int or value in _INTEGERS):
        return value
    raise _wrong(key, hint, value)


def _tuple(values: Sequence[Any], hint: Any, key: str, convert: Callable[[Any, Any, str], Any]) -> tuple[Any, ...]:
    hints = get_args(hint)
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(values)
    if len(hints) != len(values):
        raise ConfigError(f"{key}: expected {len(hints)} values separated by commas, got {len(values)}")
    return tuple(convert(value, inner, key) for value, inner in zip(values, hints, strict=True))


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _without_none(hint: Any) -> Any:
    return next(inner for inner in get_args(hint) if inner is not type(None))


def _wrong(key: str, hint: Any, value: Any) -> ConfigError:
    names = {
        int: "an integer of 64 bits" if type(value) is int else "an integer",
        float: "a finite number",
        bool: "true or false",
        str: "text",
    }
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    expected = " or ".join(map(str, choices)) or names.get(hint, "values separated by commas")
    return ConfigError(f"{key}: expected {expected}, got {shown(value)}")
