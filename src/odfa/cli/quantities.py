"""Numbers for tables: rounded to a few digits, with the unit that their name ends in; dates instead of seconds."""

import re
from datetime import UTC, datetime

_UNITS = {
    "flops_per_s": "operations a second",
    "bytes_per_s": "bytes a second",
    "ops_peak": "operations",
    "ops_useful": "operations",
    "joules": "J",
    "seconds": "s",
    "rad": "rad",
    "cpp": "cycles a pixel",
    "s": "s",
}
"""Ending of a name → unit of the value."""
_DATES = ("created_s",)


def quantity(name: str, value: object) -> str:
    """The value of `name`, whose end tells the unit.

    >>> quantity("matmul_flops_per_s", 1.5e17)
    '1.5e17 operations a second'
    """
    if name in _DATES and isinstance(value, int | float):
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC"
    if value is None or isinstance(value, bool):
        return "none" if value is None else "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(short(part) for part in value)
    if not isinstance(value, int | float):
        return str(value)
    if name.endswith("bytes"):
        return f"{value / 2**20:,.1f} MiB" if value < 2**30 else f"{value / 2**30:,.1f} GiB"
    return " ".join(filter(None, (short(value), _unit(name))))


def label(name: str) -> str:
    """The name without its unit, in words."""
    ending = _ending(name)
    return name.removesuffix(f"_{ending}").replace("_", " ")


def short(value: float) -> str:
    """Four digits at most, powers of ten without zeros: 1.5e17; whole numbers in full."""
    if isinstance(value, int):
        return f"{value:,}"
    text = f"{value:.3g}" if value and not 1e-3 <= abs(value) < 1e6 else f"{value:,.4g}"
    return re.sub(r"e([+-])0*", lambda found: "e" + found[1].strip("+"), text)


def _unit(name: str) -> str:
    return "" if name in ("seconds", "joules") else _UNITS.get(_ending(name), "")  # the name is the unit


def _ending(name: str) -> str:
    fits = [ending for ending in _UNITS if name == ending or name.endswith(f"_{ending}")]
    return max(fits, key=len, default="")
