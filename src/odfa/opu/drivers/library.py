"""Importing a vendor's library, or saying in one line what is missing."""

import importlib
from types import ModuleType

from odfa.errors import MissingExtra


def load(module: str, *, extra: str, for_what: str) -> ModuleType:
    """The module of a vendor's library.

    Raises:
        MissingExtra: it is not installed, or what it needs itself does not load.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise MissingExtra(f'{for_what} needs {module}{reason}; install it: pip install "odfa[{extra}]"') from error
