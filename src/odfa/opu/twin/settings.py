"""Settings of the digital twin, and the twins that have names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from odfa import arguments
from odfa.flow import Arm
from odfa.opu.settings import OpuSettings
from odfa.opu.twin.drift import Drift
from odfa.opu.twin.medium import Medium
from odfa.opu.twin.mirrors import Mirrors
from odfa.opu.twin.reference import Reference
from odfa.opu.twin.sensor import Sensor
from odfa.opu.twin.twin import IDEAL_REFERENCE, IDEAL_SENSOR, LARGEST_KEY, Twin
from odfa.settings import MAX_WIDTH, Settings, require
from odfa.units import check_fields

_READ_WITH: Mapping[tuple[Arm, ...], tuple[str, ...]] = {
    ("blocked",): ("sensor.speckle_fill",),
    ("tilted",): ("reference.carrier_cpp", "reference.pupil_cpp"),
    ("stepped", "tilted"): (
        "sensor.exposure_fill",
        "reference.ratio",
        "reference.nominal_density",
        "reference.ripple",
        "reference.ripple_px",
        "drift.phase_jitter_rad",
        "drift.phase_drift_rad_per_s",
    ),
}
"""What the reference arm has to do so that these settings matter."""


@dataclass(frozen=True, kw_only=True)
class TwinSettings(OpuSettings, kind="twin"):
    """The digital twin of an OPU; the defaults are those of the instrument of 2021 (see `Twin.preset`)."""

    seed: int = 0
    """Key of the medium; another key gives another, independent transmission matrix."""
    sensor: Sensor = field(default_factory=Sensor)
    """The camera: bits, noise, exposure, times."""
    reference: Reference = field(default_factory=Reference)
    """The reference arm: strength, ripple, and carrier and pupil of a tilted one."""
    mirrors: Mirrors = field(default_factory=Mirrors)
    """Faults of the mirror array."""
    medium: Medium = field(default_factory=Medium)
    """Statistics of the scattering medium."""
    drift: Drift = field(default_factory=Drift)
    """What changes from frame to frame: phase, laser power, medium, mirrors."""
    shape_dmd: tuple[int, int] = (912, 1140)
    """Rows and columns of mirrors."""
    shape_cam: tuple[int, int] = (1088, 2040)
    """Rows and columns of camera pixels."""
    rate_hz: float = 2_000.0
    """Largest frame rate of the mirrors."""
    power_w: float = 30.0
    """Electrical power of the whole unit."""
    name: str = "custom"
    """Name that is part of the OPU's id."""
    presets: ClassVar[Mapping[str, Callable[[], Settings]]] = {
        "opu-2021": lambda: TwinSettings(name="opu-2021"),
        "ideal": lambda: TwinSettings(sensor=IDEAL_SENSOR, reference=IDEAL_REFERENCE, name="ideal"),
    }

    def __post_init__(self) -> None:
        arguments.whole("seed", self.seed, 0, LARGEST_KEY)
        arguments.pair("shape_dmd", self.shape_dmd)
        arguments.pair("shape_cam", self.shape_cam)
        for name, shape in (("shape_dmd", self.shape_dmd), ("shape_cam", self.shape_cam)):
            require(max(shape) <= MAX_WIDTH, name, f"at most {MAX_WIDTH:,} rows and columns", shape)
        arguments.named("name", self.name)
        check_fields(self)

    def unread_by(self, arm: Arm) -> Mapping[str, str]:
        """What needs the reference, a tilted one, or none at all."""
        paths = [path for arms, of_arms in _READ_WITH.items() if arm not in arms for path in of_arms]
        return dict.fromkeys(paths, f"no demodulator reads it with a {arm} reference arm")

    def build(self, noise_seed: int = 0) -> Twin:
        """The twin with the key `noise_seed` of all its noise; nothing is drawn before the first frame."""
        return Twin(
            self.seed,
            noise_seed=noise_seed,
            sensor=self.sensor,
            reference=self.reference,
            mirrors=self.mirrors,
            medium=self.medium,
            drift=self.drift,
            shape_dmd=self.shape_dmd,
            shape_cam=self.shape_cam,
            rate_hz=self.rate_hz,
            power_w=self.power_w,
            name=self.name,
        )
