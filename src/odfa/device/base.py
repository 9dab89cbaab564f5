"""Stage 3, the contract: the public method thinks, the `_hw` methods only act."""

import time
from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor

from odfa.errors import FrameMismatch, Incompatible
from odfa.flow import Acquisition, Capture, Frames, Light


class AbstractDevice(ABC):
    """Mirrors, medium and camera behind one method, `run(frames) -> Capture`. The twin is a device like any other.

    A driver declares its abilities as the attributes below and fills `_run_hw` (and `_open_hw`, `_close_hw` if it
    holds a resource); checks, timing, saturation and the account of light are done here.
    """

    device_id: str
    """Names the medium: two devices with the same id give the same projection."""
    num_mirrors: int
    """Independent inputs that the modulator can show."""
    num_modes: int
    """Independent optical modes that the camera can read."""
    rate_hz: float
    """Largest number of frames per second, mirrors and camera together."""
    pixel_rate_hz: float
    """Camera pixels read per second; reading more than pixel_rate_hz / rate_hz modes slows the frames down."""
    power_w: float
    """Electrical power of the whole unit while it runs."""
    exposure_s: float
    """Camera exposure of one frame."""
    steps_phase: bool
    """True if the reference arm can step its phase."""
    full_scale: int
    """Largest count the camera can return; counts there are saturated."""

    _opened: bool = False
    _spent: Light = Light()

    def open(self) -> Self:
        """Open the hardware; called once by whoever runs it first. Devices are also context managers."""
        if not self._opened:
            self._open_hw()
            self._opened = True
        return self

    def close(self) -> None:
        """Release the hardware."""
        if self._opened:
            self._close_hw()
            self._opened = False

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def require(self, *, num_inputs: int, num_modes: int, phase_steps: bool) -> None:
        """Refuse before the first frame what the device cannot do.

        Raises:
            Incompatible: more inputs than mirrors, more modes than the camera reads, or no phase stepper.
        """
        if num_inputs > self.num_mirrors:
            raise Incompatible(
                f"{self.device_id} has {self.num_mirrors} mirrors, the error has {num_inputs} entries; "
                "read the error at a narrower place (error_at='head_input') or use a larger device"
            )
        if num_modes > self.num_modes:
            raise Incompatible(
                f"{self.device_id} reads {self.num_modes} modes, the blocks need {num_modes}; "
                "share one slice between blocks (RandomFeedback(shared=True)) or use a larger device"
            )
        if phase_steps and not self.steps_phase:
            raise Incompatible(
                f"{self.device_id} cannot step its reference phase; choose a demodulator without phase steps"
            )

    def run(self, frames: Frames, *, num_modes: int, ops_useful: float = 0.0) -> Capture:
        """Show every frame, read `num_modes` modes of each, and return the camera's counts.

        `ops_useful` is what the caller gets out of these frames (see `flow.Light`); it goes into the account.

        Raises:
            Incompatible: the frames ask for abilities that the device lacks.
            FrameMismatch: the hardware returned another number of frames than were shown.
        """
        num_samples, _, num_inputs = frames.bits_NFD.shape
        self.require(num_inputs=num_inputs, num_modes=num_modes, phase_steps=bool(frames.phase_S))
        self.open()
        start_s = time.perf_counter()
        counts_FPQ = self._run_hw(frames.bits_NFD.flatten(0, 1), frames.phase_S, num_modes)
        shown = num_samples * frames.frames_per_sample
        if counts_FPQ.ndim != 3 or len(counts_FPQ) != shown:
            raise FrameMismatch(
                f"{self.device_id}: {shown} frames shown, counts of shape {tuple(counts_FPQ.shape)} returned"
            )
        self._spent += self.cost(shown, num_modes=num_modes) + Light(ops_useful=ops_useful)
        return Capture(
            counts_NFPQ=counts_FPQ.reshape(num_samples, frames.frames_per_sample, *counts_FPQ.shape[1:]),
            acquisition=Acquisition(
                device_id=self.device_id,
                exposure_s=self.exposure_s,
                rate_hz=1.0 / self._frame_s(num_modes),
                saturated_fraction=int((counts_FPQ >= self.full_scale).sum()) / max(1, counts_FPQ.numel()),
                time_s=time.perf_counter() - start_s,
                counts_per_field=self.counts_per_field(num_inputs),
            ),
        )

    def cost(self, num_frames: int, *, num_modes: int) -> Light:
        """Light that `num_frames` frames take when `num_modes` modes are read from each.

        seconds = frames * max(1 / rate_hz, modes / pixel_rate_hz), joules = seconds * power_w, and ops_peak counts one
        multiplication and one addition per mirror and per pixel that the camera could have read in this time.
        """
        seconds = num_frames * self._frame_s(num_modes)
        return Light(
            frames=num_frames,
            seconds=seconds,
            joules=seconds * self.power_w,
            ops_peak=2.0 * self.num_mirrors * min(num_frames * self.num_modes, seconds * self.pixel_rate_hz),
        )

    def _frame_s(self, num_modes: int) -> float:
        return max(1.0 / self.rate_hz, num_modes / self.pixel_rate_hz)

    @property
    def spent(self) -> Light:
        """Light spent since the device was made (or since its state was restored)."""
        return self._spent

    def state_dict(self) -> dict[str, Any]:
        """Counters to resume from: plain numbers."""
        return {"spent": vars(self._spent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._spent = Light(**state["spent"])

    @abstractmethod
    def counts_per_field(self, num_inputs: int) -> float:
        """Interference counts per unit of field (see `flow.Capture`) when `num_inputs` inputs share the mirrors."""

    @abstractmethod
    def _run_hw(self, bits_FD: Tensor, phase_S: tuple[float, ...], num_modes: int) -> Tensor:
        """Show F patterns, each at every phase in turn; return integer counts of shape (F * max(1, S), P, Q)."""

    def _open_hw(self) -> None:  # noqa: B027 - optional for devices that hold nothing
        """Claim the hardware."""

    def _close_hw(self) -> None:  # noqa: B027 - optional for devices that hold nothing
        """Release the hardware."""
