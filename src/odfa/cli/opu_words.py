"""What may be said to `odfa opu check|calibrate|show`: trees of settings, as everywhere."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from odfa.demodulate import DemodulatorSettings
from odfa.opu import OpuSettings, TwinSettings
from odfa.settings import Settings, require_counts


@dataclass(frozen=True, kw_only=True)
class CheckWords(Settings):
    """An OPU and what of it is tried."""

    opu: OpuSettings = field(default_factory=TwinSettings)
    """The OPU."""
    demodulator: DemodulatorSettings | None = None
    """How counts become a field; none: as the OPU's arms allow."""
    inputs: int | None = None
    """Width of the errors; none: as the action has it."""
    modes: int | None = None
    """Optical modes that are read; none: as the action has it."""

    def __post_init__(self) -> None:
        require_counts(self, "inputs", "modes")


@dataclass(frozen=True, kw_only=True)
class CalibrateWords(CheckWords):
    """The same, and what is measured and kept."""

    matrix: Literal["hadamard", "one_hot"] | None = None
    """How the matrix is measured too; none: it is not."""
    out: Path | None = None
    """Folder to make; none: calibrations/NAME."""


@dataclass(frozen=True, kw_only=True)
class ShowWords(Settings):
    """An OPU and where its pictures go."""

    opu: OpuSettings = field(default_factory=TwinSettings)
    """The OPU."""
    out: Path | None = None
    """Folder of the pictures; none: pictures/NAME."""
