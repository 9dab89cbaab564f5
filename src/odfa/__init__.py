"""Train neural networks with light: direct feedback alignment for any PyTorch model.

The one heavy step of the learning rule, a fixed random projection of the output error, can be done by an optical
processing unit (arXiv 2409.12965) or by its digital twin; everything else is ordinary PyTorch.

    dfa = odfa.DFA(model, blocks="blocks.*", feedback=odfa.Optical(odfa.Twin.preset("opu-2021")))
    loss.backward()  # unchanged: any loop, any optimiser
"""

from typing import Any

from odfa.demodulate import Anchor, Intensity, OffAxis, PhaseSteps
from odfa.device import AbstractDevice, Bench, Twin, open_device
from odfa.encode import BitPlanes, Sign, Ternary
from odfa.engine import DFA, AlignedReadout, ElectronicOnly, ExactReadout, RandomFeedback, Shallow, fuse_optimizer
from odfa.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    Drifted,
    FrameMismatch,
    Incompatible,
    MatchError,
    MissingExtra,
    NonFinite,
    OdfaError,
    RunFolderError,
    Saturated,
)
from odfa.project import Gaussian, Guard, Hadamard, Identity, Optical, Rademacher
from odfa.train import load_run

__version__ = "0.1.0"

__all__ = [
    "DFA",
    "RandomFeedback",
    "AlignedReadout",
    "ElectronicOnly",
    "ExactReadout",
    "Shallow",
    "fuse_optimizer",
    "Ternary",
    "Sign",
    "BitPlanes",
    "AbstractDevice",
    "Twin",
    "Bench",
    "open_device",
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
    "DeviceError",
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


def __getattr__(name: str) -> Any:
    """`odfa.features`, which loads scikit-learn, when it is first asked for."""
    if name == "features":
        from importlib import import_module

        return import_module("odfa.features")
    raise AttributeError(f"module 'odfa' has no attribute {name!r}")
