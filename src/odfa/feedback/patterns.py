"""Patterns over dotted names."""

import re


def matches(pattern: str, name: str) -> bool:
    """True if `pattern` describes the whole dotted `name`: `*` is one part of it, `**` any number of parts."""
    parts = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^.]+")
    return re.fullmatch(parts, name) is not None
