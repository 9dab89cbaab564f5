"""How the kernels of this room are compiled: by numba, cached on disk until the code generator changes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba

_OTHERS = ("triton_*.py", "accelerated.py")
"""Files of the accelerators' kernels, which numba does not see."""
_FILES = (
    path for path in sorted(Path(__file__).parent.glob("*.py")) if not any(path.match(other) for other in _OTHERS)
)
_SOURCE = hashlib.sha256(b"".join(path.read_bytes() for path in _FILES) + llvmlite.__version__.encode()).hexdigest()[
    :12
]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile without the GIL, cached on disk under a name that changes with the code generator."""
    # numba's cache looks at the file of the kernel alone: a change of `lanes`, which writes its code, must show here
    function.__qualname__ += f"_{_SOURCE}"
    try:
        return numba.njit(nogil=True, cache=True, boundscheck=False)(function)
    except RuntimeError:  # no place to cache is writable: compile in every process
        return numba.njit(nogil=True, boundscheck=False)(function)
