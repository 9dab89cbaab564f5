"""Checks of arguments and settings; an error names the argument, what was expected and what was given."""

import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

from odfa.settings import SettingError, shown


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an integer of at least `least`; NumPy's integers are taken.

    Raises:
        SettingError: no integer, or out of range.
    """
    limits = f"at least {least}" if most is None else f"between {least} and {most}"
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise SettingError(name, f"expected an integer of {limits}, got {shown(value)}")
    return number


def real(name: str, value: Any, low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> float:
    """`value` as a float from `low` to `high`, the ends themselves left out where they are `open`.

    Raises:
        SettingError: no number (NaN is none), or out of range.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    above = number and (low < value if open_low else low <= value)
    if not above or not (value < high if open_high else value <= high):
        ends = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise SettingError(name, f"expected a number in {ends}, got {shown(value)}")
    return float(value)


def pair(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Rows and columns, two integers of at least `least`.

    Raises:
        SettingError: not two values, or one of them is no such integer.
    """
    try:
        rows, cols = value
        return whole(name, rows, least), whole(name, cols, least)
    except (TypeError, ValueError) as error:  # SettingError is a ValueError
        raise SettingError(
            name, f"expected (rows, columns), integers of at least {least}, got {shown(value)}"
        ) from error


def named(name: str, value: object) -> str:
    """A text that is not empty.

    Raises:
        SettingError: the text is empty or has several lines, or the value is no text.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise SettingError(name, f"expected a text in one line that is not empty, got {shown(value)}")
    return value


def kind(name: str, value: object, wanted: type | tuple[type, ...], write: str = "") -> None:
    """Refuse what is not a `wanted`, such as a class in place of an object.

    Args:
        name: the argument.
        value: what was given for it.
        wanted: class or classes of which it must be an instance.
        write: what to write instead, shown behind the complaint.

    Raises:
        SettingError: it is something else; a class in place of an object is told apart.
    """
    if not isinstance(value, wanted):
        expected = " or ".join(map(_described, wanted if isinstance(wanted, tuple) else (wanted,)))
        got = f"the class {value.__name__}" if isinstance(value, type) else f"{type(value).__name__} {value!r:.60}"
        advice = f"; write {write}" if write else ""
        raise SettingError(name, f"expected {expected}, got {' '.join(got.split())}{advice}")


def _described(wanted: type) -> str:
    """An article and the class in small letters, without the word that marks base classes."""
    word = wanted.__name__.removeprefix("Abstract").lower()
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def all_in(name: str, value: object, size: int, low: float, high: float) -> None:
    """Refuse what is not `size` numbers within (low, high).

    Raises:
        SettingError: another number of them, or one out of range.
    """
    numbers = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
    if len(numbers) != size:
        raise SettingError(name, f"expected {size} numbers in ({low:g}, {high:g}), got {shown(value)}")
    for number in numbers:
        real(name, number, low, high, open_low=True, open_high=True)
