"""Patterns with stars that describe dotted names of modules."""

import re
from collections.abc import Collection


def described(pattern: str, names: Collection[str]) -> list[str]:
    """Those of `names` that `pattern` describes; a name without stars is looked up, for a model may have thousands."""
    if "*" not in pattern:
        return [pattern] if pattern in names else []
    return [name for name in names if matches(pattern, name)]


def matches(pattern: str, name: str) -> bool:
    """True if `pattern` describes the whole dotted `name`: `*` is one part of it, `**` any number of parts."""
    parts = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^.]+")
    return re.fullmatch(parts, name) is not None
