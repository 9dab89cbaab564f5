"""The digital twin: a device like any other, whose glass and camera are functions of tensors."""

from typing import Any, Self

import torch
from torch import Tensor

from odfa.device.base import AbstractDevice
from odfa.device.twin.medium import transmission, transmission_chunk
from odfa.device.twin.reference import Reference, interfere
from odfa.device.twin.sensor import Sensor, detect
from odfa.errors import ConfigError
from odfa.keys import fingerprint, torch_generator
from odfa.units import check

_STREAM = int.from_bytes(b"camera")
_BLOCK = 2**15
"""Camera pixels handled at a time: temporaries stay in cache, and torch does not wake its threads for so few."""


class Twin(AbstractDevice):
    """Simulated OPU: laser -> mirrors -> scattering medium (+ stepped reference) -> camera.

    The inputs share all mirrors as equal macro-pixels, so all inputs lit give the same light whatever their number.
    With fields in units where one lit input gives a mean square of 1, s = bits A, the camera sees
    I = |s + r e^(i theta)|^2 and collects I * exposure_fill * full_well_e / ((1 + ratio) * nominal_density * D)
    electrons on average.

    >>> Twin(seed=1)
    twin(custom, seed=1, medium=e170633ad795)
    """

    steps_phase = True

    def __init__(
        self,
        seed: int = 0,
        *,
        noise_seed: int = 0,
        sensor: Sensor | None = None,
        reference: Reference | None = None,
        num_mirrors: int = 1_039_680,
        num_modes: int = 2_219_520,
        rate_hz: float = 2_000.0,
        pixel_rate_hz: float = 755e6,
        power_w: float = 30.0,
        name: str = "custom",
    ) -> None:
        """Build the twin; nothing is drawn before the first frame.

        Everyday:
            seed: key of the medium; another seed is another piece of glass.
            noise_seed: key of the camera's noise.
            sensor: the camera, `Sensor()` unless given.
            reference: the reference arm, `Reference()` unless given.

        Rare (defaults as in `preset("opu-2021")`, explained there):
            num_mirrors, num_modes: mirrors, and camera pixels, each of which reads one optical mode.
            rate_hz, pixel_rate_hz: largest frame rate and camera read-out rate.
            power_w: electrical power of the whole unit.
            name: part of the device id.

        Raises:
            ConfigError: a value is outside the sensible range of its unit.
        """
        for quantity, value in (("rate_hz", rate_hz), ("pixel_rate_hz", pixel_rate_hz), ("power_w", power_w)):
            check(quantity, value)
        if isinstance(seed, bool) or not isinstance(seed, int) or not isinstance(noise_seed, int):
            raise ConfigError(f"seed and noise_seed must be integers, got {seed!r} and {noise_seed!r}")
        if num_mirrors < 1 or num_modes < 1:
            raise ConfigError(f"a device needs at least one mirror and one mode, got {num_mirrors} and {num_modes}")
        self._seed, self._noise_seed = seed, noise_seed
        self._sensor, self._reference = sensor or Sensor(), reference or Reference()
        self.num_mirrors, self.num_modes = num_mirrors, num_modes
        self.rate_hz, self.pixel_rate_hz, self.power_w = rate_hz, pixel_rate_hz, power_w
        self.exposure_s, self.full_scale = self._sensor.exposure_s, self._sensor.full_scale
        probe = fingerprint(torch.stack(transmission_chunk(seed, 1, 0)).numpy())
        self.device_id = f"twin({name}, seed={seed}, medium={probe})"
        self._captures = 0
        self._media: dict[int, tuple[Tensor, Tensor]] = {}

    def __repr__(self) -> str:
        return self.device_id

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_media": {}}  # copies and pickles carry the key, not the matrix

    @classmethod
    def ideal(cls, seed: int = 0) -> Self:
        """A twin of the same medium without noise, and with a camera too deep (30 bits) for quantisation to show.

        The reference is as strong as the mean signal with all inputs lit, and 64 times the mean exposure fits on the
        scale, so nothing saturates. Projections are exact to about 1e-6 relative.
        """
        return cls(
            seed,
            sensor=Sensor(bits=None, read_noise_e=None, shot_noise=False, exposure_fill=1 / 64),
            reference=Reference(ratio=1.0, nominal_density=1.0),
            name="ideal",
        )

    @classmethod
    def preset(cls, name: str, *, seed: int = 0, noise_seed: int = 0) -> Self:
        """A named instrument.

        `opu-2021`: the LightOn OPU generation behind arXiv 2409.12965, as far as public sources tell.

        | value | status |
        | --- | --- |
        | 1,039,680 mirrors (912 x 1140) | read in the source of the vendor's library `lightonml` |
        | 2,219,520 camera pixels (2040 x 1088) | read there: the second of three camera types that it lists |
        | 2 kHz, 400 us exposure, 8-bit counts | read there: default frame time, default exposure, output type |
        | 30 W | read in the abstract of arXiv 2409.12965 |
        | 755 Mpixel/s | inferred: a 2040 x 1088 camera of 340 frames/s matches the shape; not confirmed by the vendor |
        | full well 13,500 e-, read noise 13 e- | recalled for that camera's sensor (CMV2000): a hint only |
        | reference 16 : 1, density 0.3, exposure 30 % | chosen here: a good operating point of the model |

        The paper's own read-out is not public; stepping the reference phase is this package's choice. Nothing was
        fitted to measured data. Peak throughput by this account, 2 x mirrors x pixel rate = 1570 TeraOPS, is near the
        1500 claimed; how the paper counts them is not public either.

        Raises:
            ConfigError: there is no preset of this name.
        """
        if name != "opu-2021":
            raise ConfigError(
                f"unknown preset {name!r}; available: opu-2021 (or build your own: Twin(sensor=..., reference=...))"
            )
        return cls(seed, noise_seed=noise_seed, name=name)

    def counts_per_field(self, num_inputs: int) -> float:
        """Interference counts per unit of field: r * electrons per unit of intensity * counts per electron."""
        return self._reference.amplitude(num_inputs) * self._e_per_intensity(num_inputs) * self._sensor.counts_per_e

    def state_dict(self) -> dict[str, Any]:
        """Light spent and number of captures: with `noise_seed` all there is to the random state."""
        return {**super().state_dict(), "captures": self._captures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._captures = int(state["captures"])

    def _e_per_intensity(self, num_inputs: int) -> float:
        nominal_e = self._sensor.exposure_fill * self._sensor.full_well_e
        return nominal_e / self._reference.nominal_intensity(num_inputs)

    def _medium(self, num_inputs: int, num_modes: int) -> tuple[Tensor, Tensor]:
        known = self._media.get(num_inputs)
        if known is None or known[0].shape[1] < num_modes:
            self._media[num_inputs] = known = transmission(self._seed, num_inputs, num_modes)
        return known

    def _run_hw(self, bits_FD: Tensor, phase_S: tuple[float, ...], num_modes: int) -> Tensor:
        num_patterns, num_inputs = bits_FD.shape
        steps = max(1, len(phase_S))
        generator = torch_generator(_STREAM, self._noise_seed, self._captures)
        self._captures += 1
        real_FM, imag_FM = self._speckle(bits_FD, num_modes)
        amplitude, e_per_intensity = self._reference.amplitude(num_inputs), self._e_per_intensity(num_inputs)
        counts_FSM = torch.empty((num_patterns, steps, num_modes), dtype=self._sensor.count_dtype)
        patterns = max(1, _BLOCK // (steps * num_modes))
        for start in range(0, num_patterns, patterns):
            rows = slice(start, start + patterns)
            mean_e = interfere(real_FM[rows], imag_FM[rows], amplitude, phase_S).mul_(e_per_intensity)
            counts_FSM[rows] = detect(mean_e, self._sensor, generator)
        return counts_FSM.view(num_patterns * steps, 1, num_modes)

    def _speckle(self, bits_FD: Tensor, num_modes: int) -> tuple[Tensor, Tensor]:
        real_DM, imag_DM = self._medium(bits_FD.shape[1], num_modes)
        lit_FD = bits_FD.to(self._sensor.float_dtype)
        return lit_FD @ real_DM[:, :num_modes].to(lit_FD.dtype), lit_FD @ imag_DM[:, :num_modes].to(lit_FD.dtype)
