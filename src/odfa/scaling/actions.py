"""Settings of the actions of `odfa study`: one class for each."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from odfa.devices import check_name
from odfa.scaling.measurement import require_repeats
from odfa.scaling.share import MOST, SharingConditions
from odfa.scaling.study import StudySettings
from odfa.settings import Settings, require

FOLDER = Path("runs/study")
"""Where measurement and figures go unless told otherwise."""
MEASUREMENT = FOLDER / "measurement.json"
_MOST_STEPS, _MOST_EVENTS = 100_000, 10_000_000
"""Steps of a worker, and of all of them in one simulation each: about ten minutes."""


@dataclass(frozen=True, kw_only=True)
class MeasureSettings(Settings):
    """What `odfa study measure` times, and where it writes."""

    out: Path = MEASUREMENT
    """File of the measurement."""
    memory: bool = True
    """Whether to measure peak memory too."""
    repeats: int = 6
    """Rounds; the fastest of each step counts."""
    threads: int | None = None
    """Processor threads; none: as many as torch takes by itself."""
    device: str = "cpu"
    """What is timed: cpu, cuda, cuda:N, mps, xpu or xpu:N; auto: the first accelerator of this machine, or else cpu."""

    precision: Literal["float32", "tf32"] = "float32"
    """How the device multiplies; tf32: products read 11 of 24 bits (cuda, xpu)."""

    def __post_init__(self) -> None:
        check_name(self.device)
        require_repeats(self.repeats)
        most = os.cpu_count() or 1
        fits = self.threads is None or 0 < self.threads <= most
        require(fits, "threads", f"a positive integer up to {most:,}, the processors here", self.threads)


@dataclass(frozen=True, kw_only=True)
class ScalingSettings(Settings):
    """What `odfa study scaling` follows, from which measurement, and where it draws."""

    measured: Path | None = None
    """A file that odfa study measure wrote; none: the usual one, and where there is none this machine is timed."""
    out: Path = FOLDER
    """Folder of the figures."""
    study: StudySettings = field(default_factory=StudySettings)
    """What the study ranges over."""


@dataclass(frozen=True, kw_only=True)
class ShareSettings(Settings):
    """What `odfa study share` simulates, and where it draws."""

    workers: tuple[int, ...] = (1, 2, 4, 8, 10, 11, 12, 16, 32)
    """Numbers of workers, one simulation each."""
    steps: int = 500
    """Steps of each worker."""
    out: Path = FOLDER
    """Folder of the figure."""
    sharing: SharingConditions = field(default_factory=SharingConditions)
    """How they share; where nothing of it is set, four sets of conditions are simulated one after the other."""

    def __post_init__(self) -> None:
        require(bool(self.workers), "workers", "a positive integer, or several separated by commas", self.workers)
        for count in self.workers:
            require(0 < count <= MOST, "workers", f"a positive integer up to {MOST:,}", count)
        require(0 < self.steps <= _MOST_STEPS, "steps", f"a positive integer up to {_MOST_STEPS:,}", self.steps)
        all_steps = sum(self.workers) * self.steps
        require(
            all_steps <= _MOST_EVENTS, "steps", f"at most {_MOST_EVENTS:,} steps of all workers together", all_steps
        )
