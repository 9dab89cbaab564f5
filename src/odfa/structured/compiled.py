"""How the kernels of this room are compiled: by numba, cached on disk until the code generator changes."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba

_OTHERS = ("triton_*.py", "accelerated.py")
"""Files of the accelerators' kernels, which numba does not see."""
_ROOMS = ("structured", "draws")
"""Folders of modules that kernels elsewhere call or take constants from."""


@cache
def _source(folder: Path) -> str:
    """Hash of what is compiled in this folder and in those that others build on, and of the compiler."""
    package = Path(__file__).parents[1]
    folders = dict.fromkeys([*(package / room for room in _ROOMS), folder])
    paths = [path for one in folders for path in sorted(one.glob("*.py"))]
    seen = [path.read_bytes() for path in paths if not any(path.match(other) for other in _OTHERS)]
    return hashlib.sha256(b"".join(seen) + llvmlite.__version__.encode()).hexdigest()[:12]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile without the GIL, cached on disk under a name that changes with the code generator."""
    # numba's cache looks at the file of the kernel alone: a change of what it calls, or of `lanes`, must show here
    function.__qualname__ += f"_{_source(Path(function.__code__.co_filename).parent)}"
    try:
        return numba.njit(nogil=True, cache=True, boundscheck=False)(function)
    except RuntimeError:  # no place to cache is writable: compile in every process
        return numba.njit(nogil=True, boundscheck=False)(function)
