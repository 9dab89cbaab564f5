"""Where a run's data and calibration lie: whole paths in the run folder, and no part of what makes two runs equal.

A place is a field of the type `Path | None`, wherever it stands in the tree of settings.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from odfa.settings import Settings

S = TypeVar("S", bound=Settings)


def with_whole_paths(config: S) -> S:
    """`config` with paths that mean the same from every working folder."""
    return _with_places(config, lambda path: Path(path).expanduser().absolute())


def without_places(config: S) -> S:
    """`config` without them: data are known by their fingerprint, calibrations by their number."""
    return _with_places(config, lambda _path: None)


def _with_places(config: S, of: Callable[[Path], Path | None]) -> S:
    """A copy with every place replaced by what `of` makes of it; none stays none."""
    hints, changed = get_type_hints(type(config)), dict[str, Any]()
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Settings):
            changed[field.name] = _with_places(value, of)
        elif hints[field.name] == Path | None and value is not None:
            changed[field.name] = of(value)
    return replace(config, **changed)
