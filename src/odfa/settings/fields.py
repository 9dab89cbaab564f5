"""The fields of a settings class: their types, and the values of an object compared with them as soon as it is made."""

import dataclasses
import inspect
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from odfa.errors import ConfigError
from odfa.settings.refusals import SettingError, shown
from odfa.settings.rooms import kinds_of, told_kinds
from odfa.settings.values import INTEGERS, from_json, is_optional, is_path, without_none

Fits = Callable[[Any], bool]


def hints_of(kind: type) -> Mapping[str, Any]:
    """Field → type of a settings class, in order of declaration.

    Raises:
        ConfigError: a type is written as text that names nothing in the module of the class.
    """
    return _hints(cast(Hashable, kind))


def check(record: object, settings: type) -> None:
    """Compare every value with the type of its field; what JSON would convert is converted.

    Args:
        settings: the class that all settings derive from.

    Raises:
        SettingError: for the first value that does not fit; its key is the field's name.
    """
    for name, default, fits, hint in _tests(cast(Hashable, type(record)), cast(Hashable, settings)):
        value = getattr(record, name)
        if value is not default and not fits(value):
            object.__setattr__(record, name, _converted(value, hint, name, settings))  # the class is frozen


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    try:
        hints = get_type_hints(kind)
    except NameError as error:
        raise ConfigError(
            f"{kind.__name__}: a type of its fields cannot be found ({error}); import it there"
        ) from error
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@cache
def _tests(kind: type, settings: type) -> tuple[tuple[str, object, Fits, Any], ...]:
    """Of every field: name, default if that fits (most values are defaults, and need no look), test and type."""
    tests = []
    for field in dataclasses.fields(kind):
        hint = hints_of(kind)[field.name]
        fits = _fits(hint, settings)
        tests.append((field.name, field.default if fits(field.default) else dataclasses.MISSING, fits, hint))
    return tuple(tests)


def _fits(hint: Any, settings: type) -> Fits:
    """Whether a value may stay as it is; made once for a class, since every object is compared."""
    if is_optional(hint):
        inner = _fits(without_none(hint), settings)
        return lambda value: value is None or inner(value)
    if get_origin(hint) is Literal:
        choices, kinds = get_args(hint), {type(choice) for choice in get_args(hint)}
        return lambda value: type(value) in kinds and value in choices
    if hint is int:
        lowest, beyond = INTEGERS.start, INTEGERS.stop
        return lambda value: type(value) is int and lowest <= value < beyond
    if hint is float:
        return lambda value: type(value) is float and isfinite(value)
    if hint in (bool, str):
        return lambda value: type(value) is hint
    if hint is Path:
        return lambda value: isinstance(value, Path) and is_path(str(value))
    if get_origin(hint) is tuple:
        return _all_fit(hint, settings)
    if inspect.isclass(hint) and issubclass(hint, settings):
        return lambda value: isinstance(value, hint)
    return lambda _value: True  # nothing that JSON holds: the class itself knows what fits, and saving refuses it


def _all_fit(hint: Any, settings: type) -> Fits:
    parts = get_args(hint)
    if len(parts) == 2 and parts[1] is Ellipsis:
        each = _fits(parts[0], settings)
        return lambda value: type(value) is tuple and all(map(each, value))
    fits = [_fits(part, settings) for part in parts]
    return lambda value: (
        type(value) is tuple
        and len(value) == len(fits)
        and all(fit(part) for fit, part in zip(fits, value, strict=True))
    )


def _converted(value: object, hint: Any, name: str, settings: type) -> object:
    """What JSON makes of `value`.

    Raises:
        SettingError: it does not fit.
    """
    kind = without_none(hint)
    if kind is int and type(value) is not bool and isinstance(value, Integral):
        value = int(value)  # NumPy's integers are integers
    if kind is float and not isinstance(value, int | float) and isinstance(value, Real):
        value = float(value)  # NumPy's numbers of 16 and 32 bits are no floats of Python
    if inspect.isclass(kind) and issubclass(kind, settings):
        raise SettingError(name, _told(kind, value, optional=is_optional(hint)))
    return from_json(value, hint, name)


def _told(kind: Any, value: object, *, optional: bool) -> str:
    """What is wrong with `value` where settings of the class `kind` are expected, and what to write instead."""
    kinds = kinds_of(kind) if kind.room else {}
    expected = told_kinds(kind) if kinds else f"an instance of {kind.__name__}"
    expected += " or None" * optional
    if inspect.isclass(value):
        expected = "an instance" if issubclass(value, kind) else expected
        made = f"; write {value.__name__}(...)"
        return f"expected {expected}, got the class {value.__name__}" + made * issubclass(value, kind)
    if isinstance(value, str) and value in kinds:
        return f"expected {expected}, got the word {value!r}; write {kinds[value].__name__}()"
    theirs = next((one.__name__ for one in kinds.values() if _builds(one, type(value))), None)
    if theirs is not None:
        return f"expected {theirs}, got {type(value).__name__}, which they build"
    return f"expected {expected}, got {shown(value)}"


def _builds(kind: type, component: type) -> bool:
    """Whether objects of the class `component` are what settings of the class `kind` build."""
    return kind.__name__ == f"{component.__name__}Settings"
