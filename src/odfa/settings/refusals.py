"""The error of a setting that is refused, and the checks that raise it."""

from odfa.errors import ConfigError

MAX_WIDTH = 2**20
MAX_LAYERS = 10_000
MAX_COUNT = 10**9
"""Largest number of steps, epochs or samples: more than any run has time for."""
SEEDS, SEEDS_TOLD = range(2**63), "a number in [0, 2^63)"
_SHOWN = 120


class SettingError(ConfigError):
    """A setting whose value is refused; `key` is its dotted path as far as it is known."""

    def __init__(self, key: str, complaint: str) -> None:
        super().__init__(f"{key}: {complaint}" if key else complaint)
        self.key, self.complaint = key, complaint

    def under(self, name: str) -> "SettingError":
        """The same error with `name` in front of its key, as the settings one level up know it."""
        return SettingError(f"{name}.{self.key}" if self.key else name, self.complaint)


def require(condition: bool, key: str, expected: str, got: object) -> None:
    """Refuse a setting whose condition is false.

    Raises:
        SettingError: `condition` is false.
    """
    if not condition:
        raise SettingError(key, f"expected {expected}, got {shown(got)}")


def require_counts(record: object, *names: str, what: str = "a positive number") -> None:
    """Refuse settings that are neither none nor a count from 1 to `MAX_COUNT`.

    Raises:
        SettingError: for the first that is refused.
    """
    for name in names:
        value = getattr(record, name)
        most = "" if value is None or value <= MAX_COUNT else f" up to {MAX_COUNT:,}"
        require(value is None or 0 < value <= MAX_COUNT, name, what + most, value)


def shown(value: object) -> str:
    """A value as it was written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
