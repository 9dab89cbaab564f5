"""The digital twin: an OPU whose mirrors, medium and camera are computed, with the interface of an instrument."""

from typing import Self

import torch
from torch import Tensor

from odfa import arguments, fourier
from odfa.draws import Draws
from odfa.errors import ConfigError, Incompatible
from odfa.flow import Arm, View
from odfa.keys import fingerprint
from odfa.opu.base import AbstractOpu
from odfa.opu.twin.drift import Drift
from odfa.opu.twin.medium import Medium, Scatterer, later_seed, transmission_chunk
from odfa.opu.twin.mirrors import Mirrors
from odfa.opu.twin.reference import Reference, interfere, interfere_tilted, tilted_wave
from odfa.opu.twin.sensor import Sensor, detect
from odfa.saved import State, check_state
from odfa.sparse import Few, few_lit
from odfa.units import check

_STREAM = int.from_bytes(b"camera")
_PHASE, _POWER = int.from_bytes(b"phase"), int.from_bytes(b"power")
_BLOCK = 2**15
"""Camera pixels handled at a time: temporaries stay in cache, and torch does not wake its threads for so few."""
_TILTED_BLOCK = 2**16
"""The same for a tilted arm, whose transforms are faster in larger batches."""
_DEVICE_BLOCK = 2**26
"""The same on other devices, which are busy only with much at a time: temporaries take 256 MB each as float32."""
LARGEST_KEY = 2**63 - 1
_SPECKLE_DENSITY = 0.5
"""Share of lit mirrors that the exposure is set for when there is no reference."""
IDEAL_SENSOR = Sensor(bits=None, read_noise_e=None, shot_noise=False, exposure_fill=1 / 64, speckle_fill=1 / 64)
IDEAL_REFERENCE = Reference(ratio=1.0, nominal_density=1.0)


class Twin(AbstractOpu):
    """Simulated OPU: laser -> mirrors -> scattering medium (+ reference) -> camera.

    The inputs share all mirrors as equal macro-pixels, so all inputs lit give the same light whatever their number.
    With fields in units where one lit input gives a mean square of 1, s = A (weight bits + offset), the camera sees
    I = |s + r e^(i theta)|^2 and collects I * exposure_fill * full_well_e / ((1 + ratio) * nominal_density * D)
    electrons on average; without a reference I * speckle_fill * full_well_e / (D / 2).
    Stepped and blocked arm: every pixel is a mode. Tilted arm: the modes fill the pupil disc of the camera's Fourier
    plane (see `odfa.fourier`). Mode m has the same matrix column with every arm.
    All of this is calculated on the device that the patterns lie on (one that has float64). The medium and all noise,
    which capture, frame and pixel name, are the same on every device; fields differ by the rounding of matrix products,
    which follow `torch.set_float32_matmul_precision`.

    >>> Twin(seed=1)
    twin(custom, seed=1, medium=e170633ad795)
    """

    arms: frozenset[Arm] = frozenset({"blocked", "stepped", "tilted"})
    on_device: bool = True

    def __init__(
        self,
        seed: int = 0,
        *,
        noise_seed: int = 0,
        sensor: Sensor | None = None,
        reference: Reference | None = None,
        mirrors: Mirrors | None = None,
        medium: Medium | None = None,
        drift: Drift | None = None,
        matrix: Tensor | None = None,
        shape_dmd: tuple[int, int] = (912, 1140),
        shape_cam: tuple[int, int] = (1088, 2040),
        rate_hz: float = 2_000.0,
        power_w: float = 30.0,
        name: str = "custom",
    ) -> None:
        """Build the twin; nothing is drawn before the first frame.

        Everyday:
            seed: key of the medium; another seed gives another, independent transmission matrix.
            noise_seed: key of all noise: camera, jitter.
            sensor, reference, mirrors, medium, drift: the camera, the reference arm, faults of the mirrors, statistics
                of the medium, what changes over time; each class explains its settings and their defaults.

        Rare:
            matrix: complex (D, M) transmission matrix, entries of mean square 1, in place of the keyed medium.
            shape_dmd, shape_cam: rows and columns of mirrors and of camera pixels.
            rate_hz: largest frame rate of the mirrors.
            power_w: electrical power of the whole unit.
            name: part of the OPU id.

        Raises:
            ConfigError: a value is outside the sensible range of its unit, or of the wrong kind.
        """
        for quantity, value in (("rate_hz", rate_hz), ("power_w", power_w)):
            check(quantity, value)
        for key, number in (("seed", seed), ("noise_seed", noise_seed)):
            arguments.whole(key, number, 0, LARGEST_KEY)
        parts = {"sensor": Sensor, "reference": Reference, "mirrors": Mirrors, "medium": Medium, "drift": Drift}
        for part, given in zip(parts, (sensor, reference, mirrors, medium, drift), strict=True):
            if given is not None:
                arguments.kind(part, given, parts[part])
        arguments.named("name", name)
        _check_matrix(matrix)
        self._seed, self._noise_seed, self._matrix_DM = seed, noise_seed, matrix
        self._sensor, self._reference = sensor or Sensor(), reference or Reference()
        self._mirrors, self._medium, self._drift = mirrors or Mirrors(), medium or Medium(), drift or Drift()
        self.shape_dmd, self.shape_cam = (
            arguments.pair("shape_dmd", shape_dmd), arguments.pair("shape_cam", shape_cam),
        )  # fmt: skip
        self.rate_hz, self.power_w = rate_hz, power_w
        self.carrier_cpp, self.pupil_cpp = self._reference.carrier_cpp, self._reference.pupil_cpp
        self.exposure_s, self.full_scale = self._sensor.exposure_s, self._sensor.full_scale
        self.opu_id = self._name_medium(name)
        self._scatterers: dict[tuple[int, int], Scatterer] = {}

    def _name_medium(self, name: str) -> str:
        if self._matrix_DM is not None:
            given = torch.view_as_real(self._matrix_DM.resolve_conj()).cpu()
            return f"twin({name}, matrix={fingerprint(given.numpy())})"
        probe = fingerprint(torch.stack(transmission_chunk(self._seed, 1, 0)).numpy())
        # whatever changes the matrix belongs to its name
        parts = ((Medium(), self._medium), (Mirrors(), self._mirrors))
        special = [
            f", {key}={value}"
            for usual, chosen in parts
            for key, value in vars(chosen).items()
            if value != getattr(usual, key)
        ]
        return f"twin({name}, seed={self._seed}, medium={probe}{''.join(special)})"

    def __repr__(self) -> str:
        return self.opu_id

    def __getstate__(self) -> State:
        return {**vars(self), "_scatterers": {}}  # copies and pickles carry the key, not the matrix

    @classmethod
    def ideal(
        cls, seed: int = 0, *, noise_seed: int = 0, drift: Drift | None = None, matrix: Tensor | None = None
    ) -> Self:
        """A twin of the same medium without noise, and with a camera too deep (30 bits) for quantisation to show.

        The reference is as strong as the mean signal with all inputs lit, and 64 times the mean exposure fits on the
        scale, so nothing saturates. Projections are exact to about 1e-6 relative, as long as nothing drifts.
        """
        sensor, reference = IDEAL_SENSOR, IDEAL_REFERENCE
        return cls(
            seed, noise_seed=noise_seed, sensor=sensor, reference=reference, drift=drift, matrix=matrix, name="ideal"
        )

    @classmethod
    def preset(cls, name: str, *, seed: int = 0, noise_seed: int = 0, drift: Drift | None = None) -> Self:
        """A named instrument.

        `opu-2021`: the LightOn OPU generation behind arXiv 2409.12965, as far as public sources tell.

        | value | status |
        | --- | --- |
        | 912 x 1140 = 1,039,680 mirrors | read in the source of the vendor's library `lightonml` |
        | 1088 x 2040 = 2,219,520 camera pixels | read there: the second of three camera types that it lists |
        | 2 kHz, 400 us exposure, 8-bit counts | read there: default frame time, default exposure, output type |
        | frame >= max(reading the rows, exposure) + 50 us | read there |
        | 30 W | read in the abstract of arXiv 2409.12965 |
        | reading: 2.6875 us a row + 32.25 us | CMV2000 data sheet; that the camera has this sensor is inferred |
        | full well 13,500 e-, read noise 13 e- | recalled for that sensor: a hint only |
        | reference 16 : 1, density 0.3, exposure 30 % | chosen here: a good operating point of the model |
        | carrier 0.33, pupil 0.141 cycles per pixel | chosen here: 16 pixels a mode, orders just apart |

        How the paper itself demodulated is not public; which demodulator runs is this package's choice. Nothing was
        fitted to measured data, and no drift is assumed. Peak throughput by this account, 2 x mirrors x pixels per
        second = 1535 TeraOPS, is near the 1500 claimed; how the paper counts them is not public either.

        Raises:
            ConfigError: there is no preset of this name.
        """
        if name != "opu-2021":
            raise ConfigError(
                f"unknown preset {name!r}; available: opu-2021 (or build your own: Twin(sensor=..., reference=...))"
            )
        return cls(seed, noise_seed=noise_seed, drift=drift, name=name)

    def frame_s(self, roi: tuple[int, int]) -> float:
        """Seconds per frame: the mirrors' period, or what the camera needs for this many rows."""
        return max(1.0 / self.rate_hz, self._sensor.busy_s(roi[0]))

    def reference_amplitude(self, num_inputs: int) -> float:
        """r in units where one lit input gives a field of mean square 1."""
        return self._reference.amplitude(num_inputs)

    def counts_per_intensity(self, num_inputs: int, arm: Arm) -> float:
        """Counts per unit of |E|^2, from the exposure that the camera was set to."""
        return self._e_per_intensity(num_inputs, arm) * self._sensor.counts_per_e

    def transmission(self, num_inputs: int, num_modes: int) -> Tensor:
        """The matrix as patterns see it at the beginning, complex128 (D, M): for tests and small sizes."""
        weight_D, _ = self._mirrors.response(num_inputs, self.num_mirrors)
        scatterer = Scatterer(self._seed, num_inputs, self._medium, torch.float64, self._matrix_DM)
        place_D = torch.arange(num_inputs)
        one_each = Few(place_D, weight_D, place_D)
        real_DM, imag_DM = scatterer.propagate(torch.diag(weight_D), num_modes, few=one_each)
        return torch.complex(real_DM, imag_DM)

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned: the light spent is, with `noise_seed`, all there is to noise and drift.

        Raises:
            CheckpointError: this is not the state of a twin.
        """
        check_state(state, {"spent": object}, "opu")
        super().load_state_dict(state)

    def _e_per_intensity(self, num_inputs: int, arm: Arm) -> float:
        if arm == "blocked":
            return self._sensor.speckle_fill * self._sensor.full_well_e / (_SPECKLE_DENSITY * num_inputs)
        nominal_e = self._sensor.exposure_fill * self._sensor.full_well_e
        return nominal_e / self._reference.nominal_intensity(num_inputs)

    def _run_hw(self, bits_FD: Tensor, *, phase_S: tuple[float, ...], arm: Arm, roi: tuple[int, int]) -> Tensor:
        # Noise is named by the number of the frame, of all that were ever shown: it is repeated after a resume without
        # saving any generator, and does not depend on how frames are shared among captures and blocks.
        (num_patterns, num_inputs), device = bits_FD.shape, bits_FD.device
        steps_S = torch.tensor(phase_S or (0.0,), dtype=torch.float64)
        key, before = (_STREAM, self._noise_seed), self.spent.frames
        shown = num_patterns * len(steps_S)
        time_F = self.spent.seconds + self.frame_s(roi) * torch.arange(shown, dtype=torch.float64, device=device)
        # a blocked arm has no phase, and draws none, so that its settings change nothing at all
        drawn_F = (
            torch.zeros_like(time_F)
            if arm == "blocked"
            else self._drift.phase_F(time_F, Draws(*key, _PHASE).behind(before))
        )
        phase_FS = drawn_F.view(num_patterns, len(steps_S)) + steps_S.to(device)
        gain_F = self._drift.gain_F(shown, Draws(*key, _POWER).behind(before), device)
        gain_FS1 = None if gain_F is None else gain_F.view(num_patterns, len(steps_S), 1)
        view = View(shape=roi, carrier_cpp=self.carrier_cpp, pupil_cpp=self.pupil_cpp)
        real_FM, imag_FM = self._speckle(bits_FD, time_F[:: len(steps_S)], arm, view)

        amplitude = 0.0 if arm == "blocked" else self._reference.amplitude(num_inputs)
        profile_N = None if arm == "blocked" else self._reference.profile(roi, real_FM.dtype, device)
        if arm == "tilted":
            wave_PQ = tilted_wave(amplitude, view, profile_N, torch.complex(real_FM[:0], imag_FM[:0]).dtype, device)
        e_per_intensity = self._e_per_intensity(num_inputs, arm)
        counts_FSN = bits_FD.new_empty((num_patterns, len(steps_S), view.num_pixels), dtype=self._sensor.count_dtype)
        block = _DEVICE_BLOCK if device.type != "cpu" else _TILTED_BLOCK if arm == "tilted" else _BLOCK
        patterns = max(1, block // (len(steps_S) * view.num_pixels))
        for start in range(0, num_patterns, patterns):
            rows = slice(start, start + patterns)
            field, phase = (real_FM[rows], imag_FM[rows]), phase_FS[rows]
            if arm == "tilted":
                mean_e = interfere_tilted(*field, phase[:, 0], wave_PQ, view)
            else:
                mean_e = interfere(*field, amplitude, phase, profile_N)
            mean_e.mul_(e_per_intensity)
            if gain_FS1 is not None:
                mean_e.mul_(gain_FS1[rows].to(mean_e.dtype))
            counts_RN = detect(mean_e.flatten(0, 1), self._sensor, key, before + start * len(steps_S))
            counts_FSN[rows] = counts_RN.view(mean_e.shape)
        return counts_FSN.view(shown, *roi)

    def _speckle(self, bits_FD: Tensor, time_F: Tensor, arm: Arm, view: View) -> tuple[Tensor, Tensor]:
        """Real and imaginary part (F, M) of the field at the time of each pattern."""
        num_modes = len(fourier.pupil_bins(view)[0]) if arm == "tilted" else view.num_pixels
        num_inputs, dtype, device = bits_FD.shape[1], self._sensor.float_dtype, bits_FD.device
        # Drift is followed frame by frame only where it is cheap: the medium turns with every pattern, but which two
        # media it is between, and the mirrors' aberration, are those at the beginning of the capture.
        weight_D, offset_D = self._mirrors.response(num_inputs, self.num_mirrors)
        few = few_lit(bits_FD) if dtype == torch.float32 else None
        x_FD = bits_FD.to(dtype) if few is None else bits_FD
        if self._mirrors != Mirrors(seed=self._mirrors.seed):
            x_FD, few = x_FD * weight_D.to(device, dtype) + offset_D.to(device, dtype), None
        start_s = self.spent.seconds if len(time_F) else 0.0
        epoch = self._drift.epoch(start_s)
        aberration_D = self._drift.aberration_D(num_inputs, start_s)
        now = self._through(epoch, x_FD, aberration_D, num_modes, arm, few)
        if self._drift.decorrelation_s is None:
            return now
        later = self._through(epoch + 1, x_FD, aberration_D, num_modes, arm, few)
        turn_F1 = self._drift.turn_F(time_F, epoch)[:, None]
        cos_F1, sin_F1 = (wave_F1.to(device, dtype) for wave_F1 in (turn_F1.cos(), turn_F1.sin()))
        return now[0] * cos_F1 + later[0] * sin_F1, now[1] * cos_F1 + later[1] * sin_F1

    def _through(
        self,
        epoch: int,
        x_FD: Tensor,
        aberration_D: Tensor | None,
        num_modes: int,
        arm: Arm,
        few: Few | None = None,
    ) -> tuple[Tensor, Tensor]:
        # The matrix of a medium is kept for the next capture, those of epochs that have passed are dropped; a state
        # restored from earlier draws them again.
        key = (x_FD.shape[1], epoch)
        if key not in self._scatterers:
            matrix_DM = self._checked_matrix(*key)
            seed = later_seed(self._seed, epoch)
            self._scatterers[key] = Scatterer(seed, key[0], self._medium, self._sensor.float_dtype, matrix_DM)
            for old in [k for k in self._scatterers if k[1] < epoch - 1]:
                del self._scatterers[old]
        propagate, grain = self._scatterers[key].propagate, arm != "tilted"
        if aberration_D is None:
            return propagate(x_FD, num_modes, grain=grain, few=few)
        # A (x e^(i phi)) = A (x cos phi) + i A (x sin phi): two real propagations, as the medium takes real inputs only
        waves, dtype = (aberration_D.cos(), aberration_D.sin()), self._sensor.float_dtype
        cos_D, sin_D = (wave_D.to(x_FD.device, dtype) for wave_D in waves)
        cos_real, cos_imag = propagate(x_FD * cos_D, num_modes, grain=grain)
        sin_real, sin_imag = propagate(x_FD * sin_D, num_modes, grain=grain)
        return cos_real - sin_imag, cos_imag + sin_real

    def _checked_matrix(self, num_inputs: int, epoch: int) -> Tensor | None:
        if self._matrix_DM is None or epoch > 0:
            return None
        if len(self._matrix_DM) != num_inputs:
            raise Incompatible(f"{self.opu_id} was given a matrix of {len(self._matrix_DM)} inputs, got {num_inputs}")
        return self._matrix_DM


def _check_matrix(matrix: object) -> None:
    if matrix is None:
        return
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or not matrix.is_complex() or not matrix.numel():
        got = f"{matrix.dtype} {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise ConfigError(f"matrix must be a complex (D, M) tensor, got {got}")
    if not bool(torch.isfinite(torch.view_as_real(matrix.resolve_conj())).all()):
        raise ConfigError("matrix must be finite, got NaN or infinite entries")
