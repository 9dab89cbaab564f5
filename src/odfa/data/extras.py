"""Imports of optional packages: one that is missing is named, with the command that installs it."""

import contextlib
import logging
from collections.abc import Iterator

from odfa.errors import MissingExtra


@contextlib.contextmanager
def needs(package: str, what: str, *, otherwise: str = "") -> Iterator[None]:
    """Around the imports that `what` needs: a module that is not installed becomes one line that names it.

    Packages keep quiet about optional parts of theirs (see `quietly`).

    Args:
        package: the name that pip knows.
        otherwise: what to do instead of installing it.

    Raises:
        MissingExtra: a module is not installed, the package's own or one that the package needs in turn.
    """
    try:
        with quietly():
            yield
    except ModuleNotFoundError as error:
        instead = f", or {otherwise}" if otherwise else ""
        message = f"{what} need {package}, but the module {error.name} is missing; pip install {package}{instead}"
        raise MissingExtra(message) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Inside, log messages up to warnings are suppressed: packages log that optional parts of theirs are missing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
