"""Enumerations of settings, with that library's names."""

from enum import Enum


class OutputRescaling(Enum):
    """How `linear_transform` scales what it returns; `transform` is never scaled."""

    variance = 1
    """Divide by stdev sqrt(n_features): unit variance for a Gaussian input."""
    norm = 2
    """Divide by stdev sqrt(n_components): norms are kept, as Johnson and Lindenstrauss have it."""
    none = 3
    """Leave the output as it is."""


class InputRoiStrategy(Enum):
    """How features fill the mirrors; odfa's OPUs always fill the display (`full`)."""

    full = 1
    small = 2
    auto = 3
