"""Settings of `odfa opu check`, `calibrate` and `show`: one class for each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from odfa.demodulate import DemodulatorSettings
from odfa.opu import OpuSettings, TwinSettings
from odfa.settings import Settings, require_counts


@dataclass(frozen=True, kw_only=True)
class CheckWords(Settings):
    """An OPU, and at what size its promises are tried."""

    opu: OpuSettings = field(default_factory=TwinSettings)
    """The OPU."""
    demodulator: DemodulatorSettings | None = None
    """How counts become a field; none: as the OPU's arms allow."""
    inputs: int | None = None
    """Width of the errors; none: as many as the checks take."""
    modes: int | None = None
    """Optical modes that are read, two real outputs each; none: as many as the checks take."""

    def __post_init__(self) -> None:
        require_counts(self, "inputs", "modes")


@dataclass(frozen=True, kw_only=True)
class CalibrateWords(Settings):
    """An OPU, what is measured of it, and where that is kept."""

    opu: OpuSettings = field(default_factory=TwinSettings)
    """The OPU."""
    demodulator: DemodulatorSettings | None = None
    """How counts become a field; none: as the OPU's arms allow."""
    inputs: int = 10
    """Width of the errors."""
    modes: int = 512
    """Optical modes that are read, two real outputs each."""
    matrix: Literal["hadamard", "one_hot"] | None = None
    """How the matrix is measured too; none: it is not."""
    out: Path | None = None
    """Folder to make; none: calibrations/NAME."""

    def __post_init__(self) -> None:
        require_counts(self, "inputs", "modes")


@dataclass(frozen=True, kw_only=True)
class ShowWords(Settings):
    """An OPU and where its pictures go."""

    opu: OpuSettings = field(default_factory=TwinSettings)
    """The OPU."""
    out: Path | None = None
    """Folder of the pictures; none: pictures/NAME."""
