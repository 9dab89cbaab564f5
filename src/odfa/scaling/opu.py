"""What an optical processing unit can do: mirrors, pixels and rates, and from them operations per second and joules.

Mirrors, camera, rates and power are the twin's; frames and their time come from it and from the demodulator that
training uses. The link to the host, the latency and the uncertainty are added here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial

from odfa.demodulate import DemodulatorSettings, OffAxisSettings
from odfa.encode import Ternary
from odfa.flow import Light
from odfa.opu import Sensor, TwinSettings
from odfa.settings import MAX_WIDTH, Settings, named, require
from odfa.units import check_fields

_TWIN = TwinSettings(name="opu-2021")
"""The twin that the defaults are taken from, so that plans and runs assume the same instrument."""


@dataclass(frozen=True, kw_only=True)
class Opu(Settings, kind="opu", room="odfa.scaling.opu", group="odfa.planned_opus"):
    """An OPU as plans see it: mirrors, camera, demodulator, link, latency and power."""

    name: str
    """What it is called in tables."""
    source: str
    """Where the figures come from, and which of them are assumed."""
    mirror_rows: int = _TWIN.shape_dmd[0]
    """Rows of micro-mirrors."""
    mirror_columns: int = _TWIN.shape_dmd[1]
    """Columns of micro-mirrors."""
    camera_rows: int = _TWIN.shape_cam[0]
    """Rows of camera pixels."""
    camera_columns: int = _TWIN.shape_cam[1]
    """Columns of camera pixels."""
    rate_hz: float = _TWIN.rate_hz
    """Largest frame rate, frames per second."""
    exposure_s: float = _TWIN.sensor.exposure_s
    """Exposure of one frame, seconds."""
    row_s: float | None = _TWIN.sensor.row_s
    """Time to read one camera row; None: no time."""
    overhead_s: float = _TWIN.sensor.overhead_s
    """Time to read a frame beyond its rows."""
    margin_s: float = _TWIN.sensor.margin_s
    """Pause between exposure or reading the rows and the next frame."""
    power_w: float = _TWIN.power_w
    """Electrical power, for as long as it is on."""
    demodulator: DemodulatorSettings = field(default_factory=OffAxisSettings)
    """How counts become a field; off-axis holography needs two frames a ternary error, four phases need eight."""
    link_bytes_per_s: float = 1.6e9
    """Link to the host: patterns out, one bit a mirror, and pixels back, one byte each."""
    latency_s: float = 1e-3
    """From a batch of errors to its first projected one, beyond the frames themselves; assumed."""
    uncertainty: float = 0.1
    """Relative uncertainty of its rate."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("mirror_rows", "mirror_columns", "camera_rows", "camera_columns"):
            require(0 < getattr(self, name) <= MAX_WIDTH, name, f"1 to {MAX_WIDTH:,}", getattr(self, name))

    def unread(self) -> Mapping[str, str]:
        """The frames that a whole run shares, which no step pays for."""
        shared = "a plan is of one step, and the frame of the reference is shown once in a run"
        return {"demodulator.flat_field": shared} if isinstance(self.demodulator, OffAxisSettings) else {}

    @property
    def num_mirrors(self) -> int:
        """Mirrors, and with them the most inputs that the unit takes."""
        return self.mirror_rows * self.mirror_columns

    def scaled(self, factor: float) -> "Opu":
        """One that is `factor` times as fast: mirrors, camera and link."""
        return replace(
            self,
            rate_hz=factor * self.rate_hz,
            exposure_s=self.exposure_s / factor,
            row_s=None if self.row_s is None else self.row_s / factor,
            overhead_s=self.overhead_s / factor,
            margin_s=self.margin_s / factor,
            link_bytes_per_s=factor * self.link_bytes_per_s,
        )

    def twin(self) -> TwinSettings:
        """Settings of the twin whose frame times these are."""
        sensor = Sensor(
            exposure_s=self.exposure_s, row_s=self.row_s, overhead_s=self.overhead_s, margin_s=self.margin_s
        )
        return TwinSettings(
            sensor=sensor,
            shape_dmd=(self.mirror_rows, self.mirror_columns),
            shape_cam=(self.camera_rows, self.camera_columns),
            rate_hz=self.rate_hz,
            power_w=self.power_w,
        )

    @property
    def peak_ops_per_s(self) -> float:
        """Operations per second that a data sheet would state: 2 x mirrors x camera pixels x rate of whole frames.

        One real multiplication and addition per mirror and pixel. It leaves out: the two signs of a ternary error
        (x 1/2), pixels spent on holography (off-axis: two real outputs for 16 pixels), and that fields are complex.
        """
        frame_s = self.twin().build().frame_s((self.camera_rows, self.camera_columns))
        return 2.0 * self.num_mirrors * self.camera_rows * self.camera_columns / frame_s


@dataclass(frozen=True, kw_only=True)
class Beam:
    """Frames, pixels and times of projecting errors of one width to so many outputs on one OPU."""

    opu: Opu
    num_inputs: int
    num_outputs: int
    frames_per_vector: float
    frame_s: float
    """Time from frame to frame: the slowest of mirrors, camera and link, which work side by side."""
    pixels: int
    """Camera pixels read in a frame."""
    rows: int
    """Camera rows read in a frame."""
    limit: str
    """What sets the frame time: mirrors, camera or link."""

    @property
    def vector_s(self) -> float:
        """Seconds that one error vector takes: frames times time per frame."""
        return self.frames_per_vector * self.frame_s

    def light(self, vectors: float) -> Light:
        """Light that so many vectors take: frames, seconds, joules and operations."""
        seconds = vectors * self.vector_s
        return Light(
            frames=round(vectors * self.frames_per_vector),
            seconds=seconds,
            joules=seconds * self.opu.power_w,
            ops_peak=seconds * self.opu.peak_ops_per_s,
            ops_useful=2.0 * vectors * self.num_inputs * self.num_outputs,
        )


@cache
def beam(opu: Opu, num_inputs: int, num_outputs: int) -> Beam:
    """Frames, pixels and times of error vectors of this width.

    Raises:
        Incompatible: more inputs than mirrors, or more outputs than the camera can hold.
    """
    # a mode gives as many real outputs as it has quadratures; the demodulator says which pixels that many modes take
    twin, demodulator = opu.twin().build(), opu.demodulator.build()
    roi = demodulator.roi(-(-num_outputs // demodulator.quadratures), twin.view)
    twin.require(num_inputs=demodulator.inputs(num_inputs), roi=roi, arm=demodulator.arm)
    # the link carries patterns out and pixels back at the same time, and mirrors, camera and link work side by side
    transfer_s = max(opu.num_mirrors / 8, roi[0] * roi[1]) / opu.link_bytes_per_s
    twin_s = twin.frame_s(roi)
    return Beam(
        opu=opu,
        num_inputs=num_inputs,
        num_outputs=num_outputs,
        frames_per_vector=demodulator.exposures(Ternary().patterns_per_sample),
        frame_s=max(twin_s, transfer_s),
        pixels=roi[0] * roi[1],
        rows=roi[0],
        limit="link" if transfer_s > twin_s else "camera" if twin_s > 1 / opu.rate_hz else "mirrors",
    )


OPUS: dict[str, Opu] = {
    opu.name: opu
    for opu in (
        Opu(
            name="opu-2021",
            source="LightOn's 2021 unit as the twin opu-2021 has it: mirrors, camera, 2 kHz and exposure of its "
            "published library, row times of the CMV2000 data sheet, 30 W of arXiv 2409.12965; PCIe 2 x4, 80 % of "
            "2 GB/s",
        ),
        Opu(
            name="opu-2019",
            source="an earlier unit through its Python interface: 230 vectors a second, flat in size, as the energy "
            "benchmark of arXiv 1910.09880 recorded it; the rest as opu-2021",
            rate_hz=230.0,
            uncertainty=0.2,
        ),
        Opu(
            name="bench-20khz",
            source="no product: the fastest mirrors of the practical guide of Popoff et al. (20 kHz) with a camera "
            "that keeps up (assumed: 1 Mpx, 0.4 µs a row), power and link assumed",
            mirror_rows=768,
            mirror_columns=1024,
            camera_rows=1024,
            camera_columns=1024,
            rate_hz=20_000.0,
            exposure_s=40e-6,
            row_s=0.4e-6,
            overhead_s=2e-6,
            margin_s=5e-6,
            power_w=150.0,
            link_bytes_per_s=12e9,
            uncertainty=0.3,
        ),
    )
}
"""Preset OPUs by name."""
Opu.presets = {name: partial(OPUS.__getitem__, name) for name in OPUS}


def get_opu(name: str) -> Opu:
    """A preset, or what `package.module:Name` names.

    Raises:
        ConfigError: there is none of that name; the message gives the nearest ones.
    """
    return named(Opu, name)
