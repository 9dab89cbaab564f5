"""A simulated vendor SDK around a twin: mirrors, camera and phase shifter that misbehave on purpose.

The parts share one `World`. They know frames of mirrors and of pixels only, as real drivers do: what the twin's physics
makes of a frame is decided by the mirrors shown, the phase set and the time gone by.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from odfa.opu import AbstractCamera, AbstractModulator, AbstractShifter, Bench, MirrorLayout, Twin

SHAPE_DMD, SHAPE_CAM = (24, 40), (40, 64)


@dataclass(kw_only=True)
class Fault:
    """What goes wrong, from which frame of the world's life on, how strongly, how many times (None: for good)."""

    kind: str
    start: int = 0
    size: float = 1.0
    times: int | None = 1


@dataclass
class World:
    """The state that mirrors, camera and shifter share."""

    twin: Twin
    num_inputs: int
    arm: str = "stepped"
    faults: list[Fault] = field(default_factory=list)
    left_justified: bool = False
    counts_frames: bool = False
    shown: int = 0
    queue: list[Tensor] = field(default_factory=list)
    phase_rad: float = 0.0
    exposure: float = 1.0
    trouble: list[str] = field(default_factory=list)

    def active(self, kind: str) -> Fault | None:
        """The fault of this kind that strikes now."""
        return next((f for f in self.faults if f.kind == kind and self.shown >= f.start and f.times != 0), None)

    def strike(self, kind: str) -> Fault | None:
        """The same, counting it as used up once more."""
        fault = self.active(kind)
        if fault is not None:
            fault.times = None if fault.times is None else fault.times - 1
            self.trouble.append(kind)
        return fault

    def light(self, bits_FD: Tensor, roi: tuple[int, int]) -> Tensor:
        """Counts of frames as the sound part of the optics would give them."""
        phase = (self.phase_rad + self._phase_fault(),) if self.arm == "stepped" else ()
        twin = self.twin
        stuck = self.active("stuck mirrors")
        if stuck is not None:
            off = torch.rand(self.num_inputs, generator=torch.Generator().manual_seed(1)) < stuck.size
            bits_FD = bits_FD & ~off
        counts_FPQ = twin._run_hw(bits_FD, phase_S=phase, arm=self.arm, roi=roi)
        changed = self.active("decorrelation")
        if changed is not None:
            twin._scatterers = {}
            twin._seed, changed.kind = twin._seed + 1000, "decorrelated"
            self.trouble.append("decorrelation")
            counts_FPQ = twin._run_hw(bits_FD, phase_S=phase, arm=self.arm, roi=roi)
        twin._spent = twin._spent + twin.cost(len(bits_FD), roi=roi)
        return (counts_FPQ.double() * self._gain()).clamp(0, twin.full_scale).to(counts_FPQ.dtype)

    def _phase_fault(self) -> float:
        jump, drift = self.active("phase jump"), self.active("slow drift")
        turned = 0.0 if drift is None else drift.size * (self.shown - drift.start) / 10_000
        return turned + (0.0 if jump is None else jump.size)

    def _gain(self) -> float:
        gain = self.exposure
        for kind in ("gain jump", "saturation"):
            fault = self.active(kind)
            gain *= 1.0 if fault is None else fault.size
        return 0.0 if self.active("dark laser") else gain


class SimulatedDmd(AbstractModulator):
    """Plays a sequence: every frame triggers the camera."""

    max_rate_hz = 20_000.0

    def __init__(self, world: World) -> None:
        self.world, self.shape_dmd = world, SHAPE_DMD
        self.handle: str | None = None
        self.stale: Tensor | None = None

    def _open_hw(self) -> None:
        self.handle = "open"

    def _close_hw(self) -> None:
        self.handle = None

    def _play_hw(self, mirrors_FYX: Tensor, rate_hz: float) -> None:
        if self.handle is None or self.world.strike("disconnect"):
            raise ConnectionError("ALP_NOT_AVAILABLE (1003)")
        layout = MirrorLayout(shape_dmd=SHAPE_DMD, num_inputs=self._inputs(mirrors_FYX))
        bits_FD = layout.read(mirrors_FYX)
        if bits_FD.shape[1] == 1:  # the self-test shows all mirrors or none
            bits_FD = bits_FD.expand(-1, self.world.num_inputs)
        if self.world.active("shifted frames"):  # the trigger comes one frame early: the camera sees the frame before
            self.world.trouble.append("shifted frames")
            last_1D = bits_FD[:1] & False if self.stale is None else self.stale
            bits_FD, self.stale = torch.cat([last_1D, bits_FD[:-1]]), bits_FD[-1:]
        self.world.queue.append(bits_FD)

    def _inputs(self, mirrors_FYX: Tensor) -> int:
        uniform = (mirrors_FYX.flatten(1).all(1) | ~mirrors_FYX.flatten(1).any(1)).all()
        return 1 if uniform else self.world.num_inputs


class SimulatedCamera(AbstractCamera):
    """One exposure per trigger; may lose, repeat or delay frames."""

    exposure_range_s = (1e-5, 1e-2)
    exposure_s = 400e-6

    def __init__(self, world: World) -> None:
        self.world, self.shape_cam = world, SHAPE_CAM
        self.bits = world.twin._sensor.bits or 30
        self.left_justified = world.left_justified
        self.roi = SHAPE_CAM
        self.late: Tensor | None = None

    def _set_exposure_hw(self, exposure_s: float) -> None:
        self.world.exposure = exposure_s / 400e-6

    def _arm_hw(self, num_frames: int, roi: tuple[int, int]) -> None:
        self.roi, self.world.queue = roi, []

    def _grab_hw(self, num_frames: int, timeout_s: float) -> tuple[Tensor, list[int] | None]:
        world = self.world
        counts_FPQ = world.light(world.queue.pop(), self.roi)
        ids = list(range(world.shown, world.shown + len(counts_FPQ)))
        world.shown += len(counts_FPQ)
        place = len(counts_FPQ) // 2
        if world.strike("lost frames"):
            counts_FPQ, ids = torch.cat([counts_FPQ[:place], counts_FPQ[place + 1 :]]), ids[:place] + ids[place + 1 :]
        if world.strike("duplicated frames"):
            counts_FPQ = torch.cat([counts_FPQ[: place + 1], counts_FPQ[place:-1]])
            ids = ids[: place + 1] + ids[place:-1]
        if (
            self.late is not None and self.late.shape[1:] == counts_FPQ.shape[1:]
        ):  # frames of the last time arrive first
            counts_FPQ, self.late = torch.cat([self.late, counts_FPQ])[:num_frames], None
        if world.strike("late frames"):
            counts_FPQ, self.late = counts_FPQ[:-2], counts_FPQ[-2:]
        if world.left_justified or world.active("undeclared shift"):
            counts_FPQ = counts_FPQ.to(torch.int32) << (16 - self.bits)
        return counts_FPQ, ids[: len(counts_FPQ)] if world.counts_frames else None


class SimulatedShifter(AbstractShifter):
    """Sets the reference's phase."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _set_hw(self, phase_rad: float) -> None:
        self.world.phase_rad = phase_rad


def rig(
    num_inputs: int,
    *faults: Fault,
    twin: Twin | None = None,
    arm: str = "stepped",
    world: dict[str, object] | None = None,
    **settings: object,
) -> tuple[Bench, World]:
    """A bench over simulated parts, and the world behind it."""
    twin = twin or Twin(shape_dmd=SHAPE_DMD, shape_cam=SHAPE_CAM)
    shared = World(twin, num_inputs, arm, [replace(fault) for fault in faults], **(world or {}))
    tilt = {"carrier_cpp": twin.carrier_cpp, "pupil_cpp": twin.pupil_cpp} if arm == "tilted" else {}
    bench = Bench(
        SimulatedDmd(shared),
        SimulatedCamera(shared),
        opu_id="simulated bench",
        shifter=SimulatedShifter(shared) if arm == "stepped" else None,
        **{"chunk_frames": 256, "timeout_s": 0.1, **tilt, **settings},
    )
    return bench, shared
