"""What every part of a config checks its settings with."""

from typing import Any

from odfa.errors import ConfigError

MAX_WIDTH = 2**20


def require(condition: bool, key: str, expected: str, got: Any) -> None:
    """Refuse a setting that does not hold.

    Raises:
        ConfigError: `condition` is false.
    """
    if not condition:
        raise ConfigError(f"{key}: expected {expected}, got {got!r}")
