"""The camera: photo-electrons to counts. Shot and read noise, dark current, full well, bits, time of reading a row."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odfa import arguments
from odfa.settings import Settings, require
from odfa.units import check_fields

_GAUSSIAN_ABOVE_E = 100.0
"""Mean electrons above which shot noise is drawn as N(lambda, lambda): skewness and excess kurtosis of the Poisson law,
lambda^-1/2 and lambda^-1, are then below 0.1 and 0.01."""
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


def detect(mean_e: Tensor, sensor: Sensor, generator: torch.Generator) -> Tensor:
    """Counts of pixels with `mean_e` expected electrons each: round, clip at 0 and full scale.

    electrons = Poisson(mean_e) + N(0, read_noise_e^2); counts = clip(round(electrons * full_scale / full_well_e)).
    The linear camera model of EMVA Standard 1288; dark current adds electrons of its own. `mean_e` is used as working
    memory.
    """
    if sensor.dark_e_per_s:
        mean_e.add_(sensor.dark_e_per_s * sensor.exposure_s)
    electrons = _electrons(mean_e, sensor.shot_noise, sensor.read_noise_e or 0.0, generator)
    return electrons.mul_(sensor.counts_per_e).round_().clamp_(0, sensor.full_scale).to(sensor.count_dtype)


def _electrons(mean_e: Tensor, shot_noise: bool, read_noise_e: float, generator: torch.Generator) -> Tensor:
    if not shot_noise and not read_noise_e:
        return mean_e
    noise = torch.empty_like(mean_e).normal_(generator=generator)
    if not shot_noise:
        return mean_e.add_(noise, alpha=read_noise_e)
    if not mean_e.is_cpu:
        return _electrons_at_once(mean_e, noise, read_noise_e, generator)
    # Poisson draws cost far more than Gaussian ones, so only faint pixels, where the laws differ, are drawn so. They
    # are put aside first, as the next lines overwrite `mean_e` and `noise`.
    faint = (mean_e < _GAUSSIAN_ABOVE_E).flatten().nonzero().squeeze(1)
    faint_mean_e, faint_noise = mean_e.flatten()[faint], noise.flatten()[faint]
    # one Gaussian draw carries both noises where the shot noise is Gaussian
    electrons = noise.mul_((mean_e + read_noise_e**2).sqrt_()).add_(mean_e)
    electrons.view(-1)[faint] = torch.poisson(faint_mean_e, generator=generator).add_(faint_noise, alpha=read_noise_e)
    return electrons


def _electrons_at_once(mean_e: Tensor, noise: Tensor, read_noise_e: float, generator: torch.Generator) -> Tensor:
    # The same laws without counting the faint pixels, for which the CPU would have to wait for the device. A Poisson
    # draw of mean 0 is the cheapest there is: bright pixels, whose draw is not used, take that one.
    faint = mean_e < _GAUSSIAN_ABOVE_E
    drawn = torch.poisson(torch.where(faint, mean_e, 0.0), generator=generator).add_(noise, alpha=read_noise_e)
    return torch.where(faint, drawn, noise.mul_((mean_e + read_noise_e**2).sqrt_()).add_(mean_e))
