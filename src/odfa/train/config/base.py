"""What every part of a config checks its settings with."""

from typing import Any

from odfa.errors import ConfigError

MAX_WIDTH = 2**20
MAX_LAYERS = 10_000
MAX_COUNT = 10**9
"""Steps, epochs, samples: more than anyone has time for."""
SEEDS, SEEDS_TOLD = range(2**63), "a number in [0, 2^63)"
_SHOWN = 120


def require(condition: bool, key: str, expected: str, got: Any) -> None:
    """Refuse a setting that does not hold.

    Raises:
        ConfigError: `condition` is false.
    """
    if not condition:
        raise ConfigError(f"{key}: expected {expected}, got {shown(got)}")


def require_counts(record: Any, prefix: str, *names: str, what: str = "a positive number") -> None:
    """Refuse settings that are neither none nor a count from 1 to `MAX_COUNT`.

    Raises:
        ConfigError: the first that does not hold.
    """
    for name in names:
        value = getattr(record, name)
        most = "" if value is None or value <= MAX_COUNT else f" up to {MAX_COUNT:,}"
        require(value is None or 0 < value <= MAX_COUNT, prefix + name, what + most, value)


def shown(value: Any) -> str:
    """A value as it was written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
