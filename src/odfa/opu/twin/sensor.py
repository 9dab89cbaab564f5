"""The camera: photo-electrons to counts. Shot and read noise, dark current, full well, bits, time of reading a row."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odfa import arguments
from odfa.draws import Draws
from odfa.opu.twin.electrons import Reading, count
from odfa.settings import Settings, require
from odfa.units import check_fields

_BRIGHT, _FAINT = int.from_bytes(b"bright"), int.from_bytes(b"faint")
_UNQUANTISED_BITS = 30


@dataclass(frozen=True, kw_only=True)
class Sensor(Settings):
    """A camera; by default an 8-bit machine-vision camera with a global shutter. Each effect can be switched off."""

    bits: int | None = 8
    """Depth of the counts; None: quantisation so fine (30 bits) that it has no effect."""
    full_well_e: float = 13_500.0
    """Electrons at which a pixel, and with it the largest count, is full."""
    read_noise_e: float | None = 13.0
    """Noise of reading a pixel, electrons rms; None: none."""
    shot_noise: bool = True
    """Poisson statistics of the photo-electrons."""
    dark_e_per_s: float | None = None
    """Dark current, electrons per second and pixel; None: none."""
    exposure_s: float = 400e-6
    """Exposure time of one frame."""
    exposure_fill: float = 0.3
    """Mean electrons at the nominal density, as a share of the full well; the laser power is set to give it."""
    speckle_fill: float = 1 / 4.6
    """The same without a reference, half of the mirrors lit: speckle intensity is exponential, exp(-4.6) = 1 % clip."""
    row_s: float | None = 2.6875e-6
    """Time to read one camera row; None: no time. 129 clock cycles of 48 MHz (CMV2000)."""
    overhead_s: float = 32.25e-6
    """Time to read a frame beyond its rows: twelve rows' worth (CMV2000)."""
    margin_s: float = 50e-6
    """Shortest pause between the longer of exposure and reading the rows and the next frame (vendor's library)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.bits is not None:
            arguments.whole("bits", self.bits, 1, 16)
        arguments.kind("shot_noise", self.shot_noise, bool)
        for name in ("exposure_fill", "speckle_fill"):  # shares of the full well
            arguments.real(name, getattr(self, name), 0.0, 1.0, open_low=True)
        acts = self.row_s is not None or self.overhead_s == type(self).overhead_s
        require(acts, "overhead_s", "nothing set with row_s=none, which takes no time for reading", self.overhead_s)

    @property
    def full_scale(self) -> int:
        """Largest count, 2^bits - 1."""
        return (1 << (self.bits or _UNQUANTISED_BITS)) - 1

    def busy_s(self, rows: int) -> float:
        """Time that one frame of `rows` rows keeps the camera: max(reading the rows, exposure) + margin."""
        reading_s = 0.0 if self.row_s is None else rows * self.row_s + self.overhead_s
        return max(reading_s, self.exposure_s) + self.margin_s

    @property
    def counts_per_e(self) -> float:
        """Counts per electron: the full well fills the scale."""
        return self.full_scale / self.full_well_e

    @property
    def float_dtype(self) -> torch.dtype:
        """Precision that resolves one count everywhere on the scale."""
        return torch.float64 if self.bits is None else torch.float32

    @property
    def count_dtype(self) -> torch.dtype:
        """Smallest type that holds a count and that torch calculates with everywhere (not so uint16)."""
        return torch.uint8 if self.full_scale < 2**8 else torch.int16 if self.full_scale < 2**15 else torch.int32


def detect(mean_e: Tensor, sensor: Sensor, key: tuple[int, ...], first_row: int = 0) -> Tensor:
    """Counts of frames (R) of pixels (C) with `mean_e` expected electrons each: round, clip at 0 and full scale.

    electrons = Poisson(mean_e) + N(0, read_noise_e^2); counts = clip(round(electrons * full_scale / full_well_e)).
    The linear camera model of EMVA Standard 1288; dark current adds electrons of its own. Noise is named by `key`, by
    the frame's number, counted from `first_row`, and by the pixel's, and is the same on every device.
    """
    reading = Reading(
        bright=Draws(*key, _BRIGHT),
        faint=Draws(*key, _FAINT),
        shot=sensor.shot_noise,
        read_e=sensor.read_noise_e or 0.0,
        counts_per_e=sensor.counts_per_e,
        full_scale=sensor.full_scale,
        dtype=sensor.count_dtype,
    )
    if sensor.bits is None:
        mean_e = mean_e.double()
    if sensor.dark_e_per_s:
        mean_e = mean_e + sensor.dark_e_per_s * sensor.exposure_s
    return count(mean_e, reading, first_row)
