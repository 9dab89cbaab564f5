"""Paths and the device of a run: made absolute before they are saved, left out where two runs are compared.

Every field of the type `Path | None`, anywhere in the tree of settings, is such a path: of data, of a calibration, of a
network. Moving the files, or going on on another device, must not make a run another one.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar, get_type_hints

from odfa.session.config import RunConfig
from odfa.settings import Settings

S = TypeVar("S", bound=Settings)


def with_whole_paths(config: S) -> S:
    """A copy of `config` with absolute paths, which mean the same from every working folder."""
    return _with_places(config, lambda path: Path(path).expanduser().absolute())


def without_places(config: S) -> S:
    """A copy of `config` without paths and with the usual device: data are identified by their fingerprint,
    calibrations by their id."""
    bare = _with_places(config, lambda _path: None)
    return replace(bare, device=RunConfig.device) if isinstance(bare, RunConfig) else bare


def _with_places(config: S, of: Callable[[Path], Path | None]) -> S:
    """A copy in which every path is replaced by what `of` returns for it; None stays None."""
    hints, changed = get_type_hints(type(config)), dict[str, Settings | Path | None]()
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Settings):
            changed[field.name] = _with_places(value, of)
        elif hints[field.name] == Path | None and value is not None:
            changed[field.name] = of(value)
    return replace(config, **changed)
