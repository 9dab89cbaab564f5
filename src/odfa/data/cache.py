"""The folder in which results of long computations are kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder `$XDG_CACHE_HOME/odfa`, or `~/.cache/odfa` where that variable is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "odfa"
