"""A mirror array and a camera of one's own as one OPU.

Shape letters: `F` frames · `D` inputs · `P Q` camera rows, columns · `S` reference phases.
"""

import contextlib
import math

import torch
from torch import Tensor

from odfa import arguments
from odfa.errors import ConfigError, Dark, Disconnected, FrameMismatch, OpuError, Saturated
from odfa.flow import Arm
from odfa.keys import torch_generator
from odfa.opu.base import AbstractOpu
from odfa.opu.bench import sync
from odfa.opu.bench.parts import AbstractCamera, AbstractModulator, AbstractShifter
from odfa.opu.mirror_layout import MirrorLayout
from odfa.saved import State, check_state
from odfa.units import check

_MOST_LAG = 3
_SELF_TEST = [*sync.HEAD, *([0, 0, 1, 1] * 50)]
"""Dark (0) and lit (1) frames. The pairs alone look the same after a lag of half their period; `sync.HEAD` does not."""
_SELF_TESTS = 3
"""Times that the self-test is tried before opening fails."""
_LEAST_PIXELS = 64
"""Sync frames are told apart on at least so many pixels."""
_STEPS = 12
"""Exposures that a search tries."""
_MARGIN_S = 50e-6
"""Pause of the camera between two frames."""


class Bench(AbstractOpu):
    """Mirrors, medium and camera on an optical table: plays patterns, grabs frames, and makes sure that they pair.

    Every chunk carries sync frames (`bench/sync.py`). A chunk whose sync frames are not in place, or that does not
    arrive in time, is shown again; after two repeats the parts are opened anew and the pairing is measured again; after
    `retries` it ends with an error that names the trouble. `health` counts all of it.
    """

    def __init__(
        self,
        dmd: AbstractModulator,
        camera: AbstractCamera,
        *,
        opu_id: str,
        shifter: AbstractShifter | None = None,
        carrier_cpp: tuple[float, float] | None = None,
        pupil_cpp: float | None = None,
        roi_dmd: tuple[int, int, int, int] | None = None,
        power_w: float = 30.0,
        chunk_frames: int = 1024,
        sync_every: int = 32,
        retries: int = 5,
        timeout_s: float = 5.0,
    ) -> None:
        """Join the parts; nothing is opened before the first frame.

        Everyday:
            dmd, camera: the parts, wired so that each mirror frame triggers one exposure.
            opu_id: names the medium; change it whenever the optics are touched.
            shifter: reference phase, if there is one: allows `PhaseSteps`.
            carrier_cpp, pupil_cpp: fringes and pupil of a tilted reference, as `odfa opu calibrate` finds them:
                allow `OffAxis`. Without either the reference is taken to be shut: `Anchor`, `Intensity`.

        Rare:
            roi_dmd: first row, first column, rows, columns of the mirrors used.
            power_w: electrical power, for the account.
            chunk_frames: frames in one upload, sync frames aside.
            sync_every: frames between two sync frames.
            retries: times that a chunk is shown again.
            timeout_s: longest wait for a chunk beyond its own duration.

        Raises:
            ConfigError: parts of the wrong kind or that state nonsense, an empty id, counts or watts out of range, or a
                carrier without pupil.
        """
        _check_parts(dmd, camera, shifter)
        arguments.named("opu_id", opu_id)
        check("power_w", power_w)
        for name, value, least in (
            ("chunk_frames", chunk_frames, 1),
            ("sync_every", sync_every, 1),
            ("retries", retries, 0),
        ):
            arguments.whole(name, value, least)
        arguments.real("timeout_s", timeout_s, 0.0, math.inf, open_low=True, open_high=True)
        if (carrier_cpp is None) != (pupil_cpp is None):
            raise ConfigError("carrier_cpp and pupil_cpp belong together, both in cycles per camera pixel")
        if carrier_cpp is not None:
            arguments.all_in("carrier_cpp", carrier_cpp, 2, -0.5, 0.5)
            arguments.real("pupil_cpp", pupil_cpp, 0.0, 0.5, open_low=True, open_high=True)
        MirrorLayout(shape_dmd=dmd.shape_dmd, num_inputs=1, roi_dmd=roi_dmd)
        self._dmd, self._camera, self._shifter, self._roi_dmd = dmd, camera, shifter, roi_dmd
        self._chunk, self._every, self._retries, self._timeout_s = chunk_frames, sync_every, retries, timeout_s
        self.opu_id, self.power_w = opu_id, power_w
        self.shape_dmd, self.shape_cam, self.full_scale = dmd.shape_dmd, camera.shape_cam, camera.full_scale
        self.carrier_cpp, self.pupil_cpp = carrier_cpp, pupil_cpp
        able: dict[Arm, bool] = {"stepped": shifter is not None, "tilted": carrier_cpp is not None}
        self.arms = frozenset(arm for arm, there in able.items() if there) or frozenset({"blocked"})
        self.rate_hz = dmd.max_rate_hz
        self.frame_lag = 0
        self.health = {"chunks": 0, "retries": 0, "reopened": 0, "realigned": 0}

    @property
    def exposure_s(self) -> float:  # type: ignore[override]
        """Exposure of the camera as it is set."""
        return self._camera.exposure_s

    def frame_s(self, roi: tuple[int, int]) -> float:
        """Seconds per frame: the mirrors' period, or exposure or reading the rows and 50 us."""
        return max(1.0 / self.rate_hz, max(self._camera.exposure_s, roi[0] * self._camera.row_s) + _MARGIN_S)

    def _open_hw(self) -> None:
        for part in self._parts():
            part.open()
        for attempt in range(_SELF_TESTS):
            try:
                self.self_test()
                return
            except FrameMismatch:  # one lost frame is no proof of wrong wiring: try again
                if attempt == _SELF_TESTS - 1:
                    raise
                self.health["retries"] += 1

    def _close_hw(self) -> None:
        with contextlib.ExitStack() as stack:  # every part is closed even if another fails to
            for part in self._parts():
                stack.callback(part.close)

    def _parts(self) -> list[AbstractModulator | AbstractCamera | AbstractShifter]:
        return [self._dmd, self._camera, *([self._shifter] if self._shifter else [])]

    def self_test(self) -> int:
        """Show 200 frames 0, 0, 1, 1, … and find by how many the camera lags; the lag is then allowed for.

        Raises:
            FrameMismatch: no lag up to 3 frames explains what the camera saw.
            Dark: dark and lit frames look the same.
        """
        # All mirrors dark or all lit: the brightest contrast there is, so that it works before the exposure is set.
        # The old lag is dropped first, because `_play` would cut frames by it.
        bits_FD = torch.tensor(_SELF_TEST, dtype=torch.bool)[:, None]
        self.frame_lag = 0
        counts_FPQ = self._play(bits_FD, self._wide((1, 1)))
        if len(counts_FPQ) != len(_SELF_TEST):
            raise FrameMismatch(f"{self.opu_id}: {len(_SELF_TEST)} frames shown, {len(counts_FPQ)} came back")
        lag = sync.lag_of(counts_FPQ, _SELF_TEST, _MOST_LAG)
        if lag is None:
            means = counts_FPQ.float().mean((1, 2))
            raise (Dark if means.max() <= 1 else FrameMismatch)(
                f"{self.opu_id}: dark and lit frames cannot be told apart (counts {means.min():.1f} to "
                f"{means.max():.1f}); check laser, shutter, trigger cable and exposure"
            )
        self.frame_lag = lag
        return lag

    def search_exposure(self, *, num_inputs: int, roi: tuple[int, int], target: float = 0.3) -> float:
        """Set the exposure so that half-lit patterns fill `target` of the scale on average; returns it in seconds.

        Raises:
            Dark: even the longest exposure is too dark. Saturated: even the shortest is too bright.
            ConfigError: a target outside (0, 1).
        """
        arguments.real("target", target, 0.0, 1.0, open_low=True, open_high=True)
        self.open()
        low, high = self._camera.exposure_range_s
        bits_FD = torch.rand((8, num_inputs), generator=torch_generator(num_inputs)) < 0.5
        fill = 0.0
        for _ in range(_STEPS):
            try:
                counts_FPQ = self._chunk_in_step(bits_FD, roi).double()
                fill = float(counts_FPQ.mean()) / self.full_scale
                clipped = float((counts_FPQ >= self.full_scale).double().mean())
            except Saturated:  # so bright that even the sync frames cannot be told apart
                fill = clipped = 1.0
            if abs(fill / target - 1) < 0.05 and clipped < 0.05:
                return self._camera.exposure_s
            # counts grow in proportion to the exposure as long as nothing clips
            factor = 0.5 if clipped >= 0.05 else min(10.0, target / max(fill, 0.01 * target))
            exposure_s = min(high, max(low, self._camera.exposure_s * factor))
            if exposure_s == self._camera.exposure_s:
                break
            self._camera.set_exposure(exposure_s)
        if fill < target:
            raise Dark(f"{self.opu_id}: {fill:.1%} of full scale at {self._camera.exposure_s:g} s, wanted {target:.0%}")
        raise Saturated(
            f"{self.opu_id}: {fill:.1%} of full scale at {self._camera.exposure_s:g} s, wanted {target:.0%}"
        )

    def _run_hw(self, bits_FD: Tensor, *, phase_S: tuple[float, ...], arm: Arm, roi: tuple[int, int]) -> Tensor:
        # phases outermost, although the caller wants them innermost: a shifter moves slowly, and so it moves S times
        # instead of F S times
        counts_SFPQ = []
        for phase_rad in phase_S or (None,):
            if phase_rad is not None and self._shifter is not None:
                self._shifter.set(phase_rad)
            parts = [self._chunk_in_step(chunk_FD, roi) for chunk_FD in torch.split(bits_FD, self._chunk)]
            counts_SFPQ.append(torch.cat(parts))
        return torch.stack(counts_SFPQ, dim=1).flatten(0, 1)

    def _chunk_in_step(self, bits_FD: Tensor, roi: tuple[int, int]) -> Tensor:
        """Frames of one chunk, shown until its sync frames are in place."""
        # A frame lost or doubled pairs every later count with the wrong pattern, and nothing in the counts would tell:
        # feedback would be noise. So a chunk is used as a whole or not at all.
        shown_FD, places, dark, lit = sync.wrap(bits_FD, self._every)
        self.health["chunks"] += 1
        trouble: OpuError | None = None
        for attempt in range(self._retries + 1):
            if attempt:
                self.health["retries"] += 1
            try:
                if attempt == 3:  # showing it again has not helped
                    self._start_over()
                counts_FPQ = self._play(shown_FD, self._wide(roi))
                if len(counts_FPQ) == len(shown_FD) and sync.in_step(counts_FPQ, dark, lit):
                    return counts_FPQ[places][:, : roi[0], : roi[1]]
                self._check_blinded(counts_FPQ)
                trouble = FrameMismatch(
                    f"{self.opu_id}: {len(shown_FD)} frames shown, {len(counts_FPQ)} came back"
                    + ("" if len(counts_FPQ) != len(shown_FD) else " out of step with their sync frames")
                    + f"; shown {attempt + 1} times; check trigger and light"
                )
            except (Disconnected, FrameMismatch) as error:
                trouble = error
        assert trouble is not None
        raise trouble

    def _check_blinded(self, counts_FPQ: Tensor) -> None:
        """Report a saturated camera as such: frames at full scale all look alike, and so out of step.

        Raises:
            Saturated: too many pixels are at full scale.
        """
        if counts_FPQ.numel() and float((counts_FPQ >= self.full_scale).float().mean()) > self.saturated_limit:
            raise Saturated(f"{self.opu_id}: the camera is at full scale; shorten the exposure or dim the laser")

    def _start_over(self) -> None:
        """Close and open the parts, and measure the pairing again."""
        self.health["reopened"] += 1
        with contextlib.suppress(OpuError):  # closing may fail for the same reason; opening again will tell
            self._close_hw()
        before = self.frame_lag
        self._open_hw()
        self.health["realigned"] += int(self.frame_lag != before)

    def _play(self, bits_FD: Tensor, roi: tuple[int, int]) -> Tensor:
        """Frames as the camera sends them, the known lag allowed for."""
        if self.frame_lag:  # the last frames come back late: as many dark ones follow, to push them out
            bits_FD = torch.cat([bits_FD, bits_FD.new_zeros((self.frame_lag, bits_FD.shape[1]))])
        layout = MirrorLayout(shape_dmd=self.shape_dmd, num_inputs=bits_FD.shape[1], roi_dmd=self._roi_dmd)
        frame_s = self.frame_s(roi)
        self._camera.arm(len(bits_FD), roi)
        self._dmd.play(layout.draw(bits_FD), min(self._dmd.max_rate_hz, 1.0 / frame_s))
        counts_FPQ = self._camera.grab(len(bits_FD), self._timeout_s + len(bits_FD) * frame_s)
        return counts_FPQ[self.frame_lag :]

    def _wide(self, roi: tuple[int, int]) -> tuple[int, int]:
        """The region, widened so that sync frames can be told apart."""
        rows, cols = roi
        cols = min(self.shape_cam[1], max(cols, -(-_LEAST_PIXELS // rows)))
        return min(self.shape_cam[0], max(rows, -(-_LEAST_PIXELS // cols))), cols

    def state_dict(self) -> State:
        """Light spent and the health counters."""
        return {**super().state_dict(), "health": dict(self.health)}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of a bench.
        """
        check_state(state, {"spent": object, "health": dict.fromkeys(self.health, int)}, "opu")
        super().load_state_dict(state)
        self.health = dict(state["health"])


def _check_parts(dmd: AbstractModulator, camera: AbstractCamera, shifter: AbstractShifter | None) -> None:
    arguments.kind("dmd", dmd, AbstractModulator)
    arguments.kind("camera", camera, AbstractCamera)
    if shifter is not None:
        arguments.kind("shifter", shifter, AbstractShifter)
    for part in (dmd, camera):
        part.check_stated()
