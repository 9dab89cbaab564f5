"""Stage 3, the contract: public methods check, time and account; the `_hw` methods of a driver only drive hardware."""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from numbers import Real
from typing import ClassVar, Self

import torch
from torch import Tensor

from odfa.errors import Dark, FrameMismatch, Incompatible, OpuError, Saturated
from odfa.flow import Acquisition, Arm, Capture, Frames, Light, View
from odfa.opu.abilities import flaws
from odfa.opu.replies import ask, counts_of
from odfa.saved import State, check_state

_DARK_COUNTS = 2
"""A capture whose brightest pixel is at or under this is dark: rounded noise reaches as far without any light."""
_SPENT = {"frames": int, "seconds": float, "joules": float, "ops_peak": float, "ops_useful": float}


class AbstractOpu(ABC):
    """Mirrors, medium and camera behind one method, `run(frames, roi=...) -> Capture`; twins and instruments alike.

    A driver declares its abilities as the attributes below and fills `_run_hw` (and `_open_hw`, `_close_hw` if it
    holds a resource); checks, timing, saturation and the account of light are done here.
    """

    opu_id: str
    """Names the medium: two OPUs with the same id give the same projection."""
    shape_dmd: tuple[int, int]
    """Rows and columns of mirrors."""
    shape_cam: tuple[int, int]
    """Rows and columns of camera pixels."""
    rate_hz: float
    """Largest number of frames per second, mirrors and camera together."""
    power_w: float
    """Electrical power of the whole unit while it runs."""
    exposure_s: float
    """Camera exposure of one frame."""
    full_scale: int
    """Largest count the camera can return; counts there are saturated."""
    arms: frozenset[Arm]
    """What the reference arm can do; an OPU without one has {"blocked"}."""
    carrier_cpp: tuple[float, float] | None = None
    """Tilted arm: carrier frequency of the fringes, row then column, cycles per pixel."""
    pupil_cpp: float | None = None
    """Tilted arm: radius of the signal's spectrum, cycles per pixel."""
    saturated_limit: float = 0.2
    """Share of saturated pixels in a capture above which it is refused."""
    on_device: bool = False
    """Whether `_run_hw` takes patterns on any device and answers there; where not, it is given patterns on the CPU."""

    calibration_id: str | None = None
    _opened: bool = False
    _spent: Light = Light()
    _nouns: ClassVar[dict[str, str]] = {
        "blocked": "shut its reference arm",
        "stepped": "step its reference phase",
        "tilted": "tilt its reference",
    }

    def open(self) -> Self:
        """Open the hardware; called once by whoever runs it first. OPUs are also context managers.

        Raises:
            OpuError: what the driver raises; Disconnected where that is no error of odfa.
        """
        if not self._opened:
            try:
                ask(self._name, self._open_hw)
            except OpuError:
                with contextlib.suppress(Exception):  # release what was claimed, and report the first error
                    self._close_hw()
                raise
            self._opened = True
        return self

    def close(self) -> None:
        """Release the hardware.

        Raises:
            OpuError: what the driver raises; Disconnected where that is no error of odfa.
        """
        if self._opened:
            self._opened = False
            ask(self._name, self._close_hw)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """True from the first `open` until `close`."""
        return self._opened

    @property
    def _name(self) -> str:
        """What errors call the OPU, whatever it states."""
        return str(getattr(self, "opu_id", None) or type(self).__name__)

    def check_stated(self) -> None:
        """Refuse an OPU that does not state its abilities, or not sensibly; all of them once it is open.

        Raises:
            OpuError: an ability is missing or makes no sense.
        """
        found = flaws(self)
        if found:
            raise OpuError(f"{self._name} states what makes no sense: {'; '.join(found)}")

    @property
    def num_mirrors(self) -> int:
        """Independent inputs that the modulator can show."""
        return self.shape_dmd[0] * self.shape_dmd[1]

    @property
    def view(self) -> View:
        """The view of the whole camera, with the fringes and the pupil of a tilted arm."""
        return View(shape=self.shape_cam, carrier_cpp=self.carrier_cpp, pupil_cpp=self.pupil_cpp)

    def require(self, *, num_inputs: int, roi: tuple[int, int], arm: Arm) -> None:
        """Refuse, before the first frame, what the OPU cannot do.

        Raises:
            Incompatible: more inputs than mirrors, more pixels than the camera has, or an arm that it has not.
            OpuError: the OPU does not state its abilities sensibly.
        """
        self.check_stated()
        if num_inputs > self.num_mirrors:
            raise Incompatible(
                f"{self.opu_id} has {self.num_mirrors} mirrors, the patterns have {num_inputs} entries; "
                "read the error at a narrower place (error_at='head_input') or use a larger OPU"
            )
        if roi[0] > self.shape_cam[0] or roi[1] > self.shape_cam[1]:
            raise Incompatible(
                f"{self.opu_id} has {self.shape_cam[0]} x {self.shape_cam[1]} camera pixels, the blocks need "
                f"{roi[0]} x {roi[1]}; share one slice between blocks (RandomFeedback(shared=True)), choose a "
                "demodulator with fewer pixels per mode or use a larger OPU"
            )
        if arm not in self.arms:
            fits = {"blocked": "Anchor()", "stepped": "PhaseSteps()", "tilted": "OffAxis()"}
            able = ", ".join(fits.get(name, name) for name in sorted(self.arms))
            raise Incompatible(f"{self.opu_id} cannot {self._nouns[arm]}; demodulators that fit: {able}")

    def run(self, frames: Frames, *, roi: tuple[int, int], ops_useful: float = 0.0) -> Capture:
        """Show every frame, read `roi` = (rows, columns) camera pixels of each, and return the camera's counts.

        The counts are on the device that the patterns lie on, wherever they were taken.
        `ops_useful` counts the operations that these frames do for the caller (see `flow.Light`), for the account.

        Raises:
            Incompatible: the frames ask for abilities that the OPU lacks.
            FrameMismatch: the hardware returned another number or shape of frames than were shown, or counts beyond
                full scale.
            OpuError: the hardware returned no integers; Disconnected where its driver fails.
            Saturated: more pixels than `saturated_limit` are at full scale.
            Dark: mirrors are lit and no pixel rises above the rounding of noise.
        """
        # everything that can be checked is checked before a frame is shown; what came back is checked before it is
        # accounted for and before anybody calculates with it
        bits_FD = frames.patterns_FD if self.on_device else frames.patterns_FD.cpu()
        self.require(num_inputs=bits_FD.shape[1], roi=roi, arm=frames.arm)
        self.open().check_stated()
        start_s = time.perf_counter()
        reply = ask(self._name, self._run_hw, bits_FD, phase_S=frames.phase_S, arm=frames.arm, roi=roi)
        counts_FPQ = counts_of(self._name, reply, roi, bits_FD.device)
        shown = len(bits_FD) * max(1, len(frames.phase_S))
        if len(counts_FPQ) != shown:
            raise FrameMismatch(
                f"{self.opu_id}: {shown} frames of {roi[0]} x {roi[1]} pixels asked for, counts of shape "
                f"{tuple(counts_FPQ.shape)} returned"
            )
        self._spent += self.cost(shown, roi=roi) + Light(ops_useful=ops_useful)
        saturated = self._check_light(counts_FPQ, bits_FD)
        time_s = time.perf_counter() - start_s  # a device has finished only once its counts have been looked at
        counts_FPQ = counts_FPQ.to(frames.bits_NFD.device)
        shared = frames.shared_frames
        per_intensity, amplitude, frame_s = self._scales(bits_FD.shape[1], frames.arm, roi)
        return Capture(
            counts_NFPQ=counts_FPQ[shared:].reshape(len(frames.bits_NFD), frames.frames_per_sample, *roi),
            shared_APQ=counts_FPQ[:shared] if shared else None,
            acquisition=Acquisition(
                opu_id=self.opu_id,
                view=View(shape=roi, carrier_cpp=self.carrier_cpp, pupil_cpp=self.pupil_cpp),
                exposure_s=self.exposure_s,
                rate_hz=1.0 / frame_s,
                saturated_fraction=saturated,
                time_s=time_s,
                counts_per_intensity=per_intensity,
                counts_per_field=per_intensity * amplitude,
                calibration_id=self.calibration_id,
            ),
        )

    def _scales(self, num_inputs: int, arm: Arm, roi: tuple[int, int]) -> tuple[float, float, float]:
        """Counts per intensity, amplitude of the reference and seconds a frame, as the driver states them."""
        per_intensity = self.counts_per_intensity(num_inputs, arm)
        amplitude, frame_s = self.reference_amplitude(num_inputs), self.frame_s(roi)
        stated: dict[str, object] = {
            "counts_per_intensity": per_intensity,
            "reference_amplitude": amplitude,
            "frame_s": frame_s,
        }
        for name, value in stated.items():
            shut = arm == "blocked" and name == "reference_amplitude"
            if not shut and not (isinstance(value, Real) and 0 < float(value) < math.inf):
                raise OpuError(f"{self._name}: {name} returned {value!r}, expected a positive number")
        return per_intensity, amplitude, frame_s

    def _check_light(self, counts_FPQ: Tensor, bits_FD: Tensor) -> float:
        # only deep cameras are called dark: of a full scale of 200 counts or less, two counts can be ordinary light
        if not counts_FPQ.numel():
            return 0.0
        brightest, at_brightest = _brightest(counts_FPQ, self.full_scale)
        if brightest > self.full_scale:
            raise FrameMismatch(
                f"{self._name}: counts up to {brightest} came back from an OPU whose full_scale is "
                f"{self.full_scale}; state the camera's largest count, or shift words that are left-justified"
            )
        saturated = (at_brightest if brightest == self.full_scale else 0) / counts_FPQ.numel()
        if saturated > self.saturated_limit:
            raise Saturated(
                f"{self.opu_id}: {saturated:.0%} of the camera's pixels are at full scale, at most "
                f"{self.saturated_limit:.0%} allowed; shorten the exposure or dim the laser"
            )
        if self.full_scale > 100 * _DARK_COUNTS and brightest <= _DARK_COUNTS and bool(bits_FD.any()):
            raise Dark(
                f"{self.opu_id}: mirrors are lit and the brightest pixel reads {brightest} of "
                f"{self.full_scale} counts; switch the laser on, open the shutter, or raise the exposure"
            )
        return saturated

    def cost(self, num_frames: int, *, roi: tuple[int, int]) -> Light:
        """Light that `num_frames` frames take when `roi` = (rows, columns) pixels are read from each.

        seconds = frames * frame_s(roi), joules = seconds * power_w, and ops_peak counts one multiplication and one
        addition per mirror and per pixel that the camera could have read in this time.
        """
        # A faster readout of a small region is no reason to claim more operations than whole frames in the same time
        # would do, so the peak is counted in pixels of whole frames.
        seconds = num_frames * self.frame_s(roi)
        whole = self.shape_cam[0] * self.shape_cam[1]
        peak_pixels = min(num_frames * whole, seconds * whole / self.frame_s(self.shape_cam))
        return Light(
            frames=num_frames,
            seconds=seconds,
            joules=seconds * self.power_w,
            ops_peak=2.0 * self.num_mirrors * peak_pixels,
        )

    def frame_s(self, roi: tuple[int, int]) -> float:
        """Seconds from one frame to the next when `roi` = (rows, columns) pixels are read."""
        return 1.0 / self.rate_hz

    @property
    def spent(self) -> Light:
        """Light spent since the OPU was made (or since its state was restored)."""
        return self._spent

    def state_dict(self) -> State:
        """Counters to resume from, as plain numbers."""
        return {"spent": vars(self._spent)}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: the account of light is missing from it.
        """
        check_state(state.get("spent"), _SPENT, "opu.spent")
        self._spent = Light(**state["spent"])

    def counts_per_intensity(self, num_inputs: int, arm: Arm) -> float:
        """Counts per unit of |E|^2, in units where one lit input gives a mean square of 1; 1.0 until calibrated."""
        return 1.0

    def reference_amplitude(self, num_inputs: int) -> float:
        """Amplitude of the reference in those units; 1.0 until calibrated."""
        return 1.0

    @abstractmethod
    def _run_hw(self, bits_FD: Tensor, *, phase_S: tuple[float, ...], arm: Arm, roi: tuple[int, int]) -> object:
        """Show F patterns, each at every phase in turn; return integer counts of shape (F * max(1, S), *roi).

        A tensor, a NumPy array of any integer type or nested lists; whatever it raises becomes a `Disconnected`.
        """

    def _open_hw(self) -> None:  # noqa: B027 - optional for OPUs that hold nothing
        """Claim the hardware that `_run_hw` needs."""

    def _close_hw(self) -> None:  # noqa: B027 - optional for OPUs that hold nothing
        """Release the hardware; also called after an `_open_hw` that failed half-way."""


def _brightest(counts_FPQ: Tensor, full_scale: int) -> tuple[int, int]:
    """Largest count, and how many pixels have it; 0 of them where it is below full scale and the CPU can tell first."""
    largest = counts_FPQ.max()
    if counts_FPQ.is_cpu and int(largest) < full_scale:
        return int(largest), 0
    # both numbers in one transfer, since each waits for everything that the device has been given to do
    found = torch.stack([largest.long(), (counts_FPQ == largest).sum()]).tolist()
    return int(found[0]), int(found[1])
