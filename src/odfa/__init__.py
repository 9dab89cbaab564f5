"""Train neural networks with light: direct feedback alignment for any PyTorch model.

The one heavy step of the learning rule, a fixed random projection of the output error, can be done by an optical
processing unit (arXiv 2409.12965) or by its digital twin; everything else is ordinary PyTorch.

    dfa = odfa.DFA(model, blocks="blocks.*", projection=odfa.Optical(odfa.Twin.preset("opu-2021")))
    loss.backward()  # unchanged: any loop, any optimiser
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odfa.demodulate import Anchor, Intensity, OffAxis, PhaseSteps
    from odfa.encode import BitPlanes, Sign, Spread, Ternary
    from odfa.engine import DFA, AlignedHead, ElectronicOnly, ExactHead, RandomFeedback, Shallow, fuse_optimizer
    from odfa.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        Drifted,
        FrameMismatch,
        Incompatible,
        MatchError,
        MissingExtra,
        NonFinite,
        OdfaError,
        OpuError,
        RunFolderError,
        Saturated,
    )
    from odfa.opu import AbstractOpu, Bench, Twin, open_opu
    from odfa.project import Gaussian, Guard, Hadamard, Identity, Optical, Rademacher
    from odfa.store import load_run

__version__ = "0.1.0"

__all__ = [
    "DFA",
    "RandomFeedback",
    "AlignedHead",
    "ElectronicOnly",
    "ExactHead",
    "Shallow",
    "fuse_optimizer",
    "Ternary",
    "Sign",
    "BitPlanes",
    "Spread",
    "AbstractOpu",
    "Twin",
    "Bench",
    "open_opu",
    "PhaseSteps",
    "OffAxis",
    "Anchor",
    "Intensity",
    "Gaussian",
    "Hadamard",
    "Rademacher",
    "Identity",
    "Optical",
    "Guard",
    "load_run",
    "OdfaError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "OpuError",
    "Drifted",
    "FrameMismatch",
    "Incompatible",
    "MatchError",
    "MissingExtra",
    "NonFinite",
    "RunFolderError",
    "Saturated",
    "__version__",
]

_ROOMS = ("errors", "engine", "encode", "opu", "demodulate", "project", "store")
"""Rooms that are searched for the names above, in this order."""


def __getattr__(name: str) -> Any:
    """A name of `__all__`, or a room such as `odfa.features`, loaded when it is first asked for.

    So `import odfa` does not load torch, and the command line prints help, or is interrupted, without waiting for it.
    """
    found = None
    if name in __all__:
        rooms = (import_module(f"odfa.{room}") for room in _ROOMS)
        found = next(getattr(room, name) for room in rooms if hasattr(room, name))
    elif not name.startswith("_") and find_spec(f"odfa.{name}"):
        found = import_module(f"odfa.{name}")
    if found is None:
        raise AttributeError(f"module 'odfa' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
