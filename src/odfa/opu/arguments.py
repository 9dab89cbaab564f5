"""Arguments of OPUs and their parts, refused by name before they can do harm."""

import operator
import textwrap
from collections.abc import Iterable
from numbers import Real
from typing import Any

from odfa.errors import ConfigError


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an integer of at least `least`; NumPy's integers are taken.

    Raises:
        ConfigError: no integer, or out of range.
    """
    limits = f"at least {least}" if most is None else f"between {least} and {most}"
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise ConfigError(f"{name} must be an integer of {limits}, got {value!r}")
    return number


def real(name: str, value: Any, low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> float:
    """`value` as a float from `low` to `high`, the ends themselves left out where they are `open`.

    Raises:
        ConfigError: no number (NaN is none), or out of range.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    above = number and (low < value if open_low else low <= value)
    if not above or not (value < high if open_high else value <= high):
        ends = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ConfigError(f"{name} must be a number in {ends}, got {value!r}")
    return float(value)


def pair(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Rows and columns, two integers of at least `least`.

    Raises:
        ConfigError: not two of them.
    """
    try:
        rows, cols = value
        return whole(name, rows, least), whole(name, cols, least)
    except (TypeError, ValueError) as error:  # ConfigError is a ValueError
        raise ConfigError(f"{name} must be (rows, columns), integers of at least {least}; got {value!r}") from error


def named(name: str, value: Any) -> str:
    """A text that is not empty.

    Raises:
        ConfigError: it is, or is no text.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigError(f"{name} must be a text in one line that is not empty, got {value!r}")
    return value


def kind(name: str, value: Any, wanted: type | tuple[type, ...]) -> None:
    """Refuse what is not a `wanted`.

    Raises:
        ConfigError: it is something else; a class in place of an object is told apart.
    """
    if not isinstance(value, wanted):
        names = " or ".join(one.__name__ for one in (wanted if isinstance(wanted, tuple) else (wanted,)))
        text = textwrap.shorten(repr(value), 60, placeholder=" …")
        got = f"the class {value.__name__} itself" if isinstance(value, type) else f"{type(value).__name__} {text}"
        raise ConfigError(f"{name} must be of type {names}, got {got}")


def all_in(name: str, value: Any, size: int, low: float, high: float) -> None:
    """Refuse what is not `size` numbers within (low, high).

    Raises:
        ConfigError: another number of them, or one out of range.
    """
    numbers = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
    if len(numbers) != size:
        raise ConfigError(f"{name} must be {size} numbers in ({low:g}, {high:g}), got {value!r}")
    for number in numbers:
        real(name, number, low, high, open_low=True, open_high=True)
