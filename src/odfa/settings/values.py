"""Single values: text behind `key=` and JSON, both typed by the field's annotation."""

import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from odfa.settings.refusals import SettingError, shown

INTEGERS = range(-(2**63), 2**63)
"""Whole numbers that a setting may have."""
_LARGEST = sys.float_info.max
Convert = Callable[[Any, Any, str], Any]


def from_text(text: str, hint: Any, key: str) -> Any:
    """The value that `text` spells, for the type `hint`.

    Raises:
        SettingError: it spells none of that type.
    """
    if is_optional(hint):
        return None if text.lower() == "none" else from_text(text, without_none(hint), key)
    if get_origin(hint) is tuple:
        inner = text.strip("()[] ").rstrip(",")
        return _tuple([part.strip() for part in inner.split(",")] if inner else [], hint, key, from_text)
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if hint is Path:
        return _path(text, key)
    if hint in (int, float):
        try:
            number = hint(text.strip())
        except ValueError as error:
            raise _wrong(key, hint, text) from error
        return from_json(number, hint, key)
    return from_json(text, hint, key)


def from_json(value: Any, hint: Any, key: str) -> Any:
    """`value` if it fits the type `hint` (an int is accepted for a float, a list for a tuple, text for a path).

    Raises:
        SettingError: it does not fit.
    """
    if is_optional(hint):
        return None if value is None else from_json(value, without_none(hint), key)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return _tuple(value, hint, key, from_json)
    if get_origin(hint) is Literal and any(
        type(value) is type(choice) and value == choice for choice in get_args(hint)
    ):
        return value
    # an integer above the largest float would not be converted; a comparison with NaN is false
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:
        return float(value)
    if hint is Path and isinstance(value, str | Path):
        return _path(str(value), key)
    if hint in (int, str, bool) and type(value) is hint and (hint is not int or value in INTEGERS):
        return value
    raise _wrong(key, hint, value)


def is_optional(hint: Any) -> bool:
    """Whether none is a value of this type."""
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def without_none(hint: Any) -> Any:
    """The type beside none; the type itself where none is no value of it."""
    return next((inner for inner in get_args(hint) if inner is not type(None)), hint) if is_optional(hint) else hint


def _tuple(values: Sequence[Any], hint: Any, key: str, convert: Convert) -> tuple[Any, ...]:
    hints = get_args(hint)
    if hints and hints[-1] is Ellipsis:
        hints = hints[:1] * len(values)
    if len(hints) != len(values):
        raise SettingError(key, f"expected {len(hints)} values, got {len(values)}")
    return tuple(convert(value, inner, key) for value, inner in zip(values, hints, strict=True))


def is_path(text: str) -> bool:
    """Whether text may be the path of a file."""
    return bool(text.strip()) and "\0" not in text


def _path(text: str, key: str) -> Path:
    if not is_path(text):
        raise SettingError(key, f"expected a path, got {text!r}")
    return Path(text)


def _wrong(key: str, hint: Any, value: Any) -> SettingError:
    names = {
        int: "an integer of 64 bits" if type(value) is int else "an integer",
        float: "a finite number",
        bool: "true or false",
        str: "text",
        Path: "a path",
    }
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if get_origin(hint) is tuple:
        names[hint] = "a list of values"
    if not choices and hint not in names:
        told = "expected int, float, bool, str, Path, a Literal, a tuple of these, or settings"
        return SettingError(key, f"a setting of the type {hint} cannot be saved; {told}")
    expected = " or ".join(map(str, choices)) or names[hint]
    return SettingError(key, f"expected {expected}, got {shown(value)}")
