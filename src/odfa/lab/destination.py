"""Where results go: looked at before the work begins, written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from odfa.errors import ConfigError, RunFolderError
from odfa.store.folder import FULL

FIGURES = ("png", "pdf", "svg", "jpg", "jpeg", "webp", "tif", "tiff")
"""Endings of figures."""


def check_folder(path: Path, key: str) -> Path:
    """Refuse a folder that cannot be made or written into; nothing is made.

    Raises:
        ConfigError: it, or the nearest folder above it that exists, is a file or does not take files.
    """
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ConfigError(f"{key}: expected a folder, {there} is none; choose another place")
    try:
        tempfile.TemporaryFile(dir=there).close()  # a file without a name; permissions alone do not tell
    except OSError as error:
        raise ConfigError(f"{key}: {there} takes no files ({error.strerror}); choose another place") from error
    return path


def check_file(path: Path, key: str) -> Path:
    """Refuse a file that cannot be written; nothing is made.

    Raises:
        ConfigError: it is a folder, or see `check_folder`.
    """
    if path.is_dir() or not path.name:
        raise ConfigError(f"{key}: expected a file, {path} is a folder")
    check_folder(path.parent, key)
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{key}: {path} cannot be written; change its permissions or choose another file")
    return path


def check_figure(path: Path, key: str) -> Path:
    """Refuse a file that no figure can be drawn into; nothing is made.

    Raises:
        ConfigError: its ending is none of `FIGURES`, or see `check_file`.
    """
    check_file(path, key)
    if path.suffix.lower().removeprefix(".") not in FIGURES:
        raise ConfigError(f"{key}: expected a name that ends in .{', .'.join(FIGURES)}, got {path.name!r}")
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write `path` into one line.

    Raises:
        RunFolderError: the system does not take it.
    """
    try:
        yield
    except RunFolderError:
        raise
    except OSError as error:
        advice = "free space" if error.errno in FULL else "change its permissions"
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; {advice} or choose another place"
        ) from error
    except SafetensorError as error:  # what the system said is in its words only
        raise RunFolderError(f"cannot write {path}: {error}; free space or choose another place") from error
