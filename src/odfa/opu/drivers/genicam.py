"""GenICam cameras (GigE Vision, USB3 Vision, CoaXPress, Camera Link HS) through `harvesters`."""

import time
from typing import Any

import numpy as np

from odfa import arguments
from odfa.errors import ConfigError, OpuError
from odfa.opu.bench.parts import AbstractCamera
from odfa.opu.drivers.library import load

_READABLE = 3
"""GenApi's access modes from RO on; below are features not implemented, not available or write-only."""
_PLAIN: dict[str, bool | int | str] = {
    "AcquisitionMode": "Continuous",
    "ExposureAuto": "Off",
    "GainAuto": "Off",
    "BlackLevelAuto": "Off",
    "GammaEnable": False,
    "BinningHorizontal": 1,
    "BinningVertical": 1,
    "DecimationHorizontal": 1,
    "DecimationVertical": 1,
    "AcquisitionFrameRateEnable": False,
}
"""Features that cameras have on by default or keep from an earlier session, and that make counts anything but
proportional to the light or lose triggers; set where the camera has them."""


class GenICamCamera(AbstractCamera):
    """A camera that takes one frame per hardware trigger on `trigger_source`.

    Opening switches off what changes counts or pixels by itself (automatic exposure and gain, gamma, binning, offsets
    of an earlier session) and reads back every feature that it sets. Regions are widened to what the camera allows,
    and frames cropped again.
    """

    def __init__(
        self,
        producer: str,
        shape_cam: tuple[int, int],
        *,
        bits: int = 8,
        left_justified: bool = False,
        serial: str | None = None,
        trigger_source: str = "Line0",
        exposure_s: float = 400e-6,
        exposure_range_s: tuple[float, float] = (1e-5, 1.0),
        row_s: float = 0.0,
    ) -> None:
        """Name the camera; it is claimed when the bench opens.

        Args:
            producer: path of the vendor's GenTL producer (a .cti file).
            shape_cam: rows and columns of the sensor.
            bits: depth; the pixel format becomes Mono8, Mono10, Mono12, …
            left_justified: True if the producer delivers the bits in the high end of 16.
            serial: serial number; None: the first camera found.
            trigger_source: line that the mirror array's synch output is wired to.
            exposure_s: exposure that the camera is opened with.
            exposure_range_s: shortest and longest exposure.
            row_s: time to read a row.

        Raises:
            ConfigError: an argument is out of range or of the wrong kind.
        """
        for name, text in (("producer", producer), ("trigger_source", trigger_source)):
            arguments.named(name, text)
        if serial is not None:
            arguments.named("serial", serial)
        self.shape_cam, self.bits, self.left_justified = shape_cam, bits, left_justified
        self.exposure_s, self.exposure_range_s, self.row_s = exposure_s, exposure_range_s, row_s
        self._producer, self._serial, self._trigger = producer, serial, trigger_source
        self._harvester: Any = None
        self._acquirer: Any = None
        self._roi = shape_cam
        self.check_stated()

    def _open_hw(self) -> None:
        # The order matters: offsets limit the largest size, and the pixel format and trigger limit the exposure time,
        # so that sizes are read after offsets are reset and the exposure is set last.
        core = load("harvesters.core", extra="genicam", for_what="a GenICam camera")
        self._harvester = core.Harvester()
        self._harvester.add_file(self._producer, check_existence=True)
        self._harvester.update()
        self._acquirer = self._harvester.create(None if self._serial is None else {"serial_number": self._serial})
        for name, value in _PLAIN.items():
            if self._has(name):
                self._set(name, value)
        if self._has("Gamma") and not self._has("GammaEnable"):
            self._set("Gamma", 1.0)
        self._set("PixelFormat", f"Mono{self.bits}")
        self._set("TriggerSelector", "FrameStart")
        self._set("TriggerMode", "On")
        self._set("TriggerSource", self._trigger)
        self._set("ExposureMode", "Timed")
        self._reset_offsets()
        largest = self._node("Height").max, self._node("Width").max
        if largest[0] < self.shape_cam[0] or largest[1] < self.shape_cam[1]:
            raise ConfigError(f"the camera has {largest[0]} x {largest[1]} pixels, shape_cam says {self.shape_cam}")
        shortest_us, longest_us = self._node("ExposureTime").min, self._node("ExposureTime").max
        low_s, high_s = self.exposure_range_s
        self.exposure_range_s = max(low_s, 1e-6 * shortest_us), min(high_s, 1e-6 * longest_us)
        self.set_exposure(self.exposure_s)

    def _has(self, name: str) -> bool:
        node = getattr(self._acquirer.remote_device.node_map, name, None)
        return node is not None and int(node.get_access_mode()) >= _READABLE

    def _node(self, name: str) -> Any:
        """A feature of the camera by its GenICam name.

        Raises:
            OpuError: the camera does not have it, or does not let it be read.
        """
        if not self._has(name):
            raise OpuError(f"{type(self).__name__}: the camera has no feature {name}, or does not let it be read")
        return getattr(self._acquirer.remote_device.node_map, name)

    def _set(self, name: str, value: bool | float | str) -> None:
        """Set a feature, unless it is as wanted already, and read it back."""
        # some features are read-only while they have their only value, and many cameras ignore a value without an error
        node = self._node(name)
        if node.value != value:
            node.value = value
        if node.value != value:
            raise OpuError(
                f"{type(self).__name__}: the camera keeps {name} = {node.value}, {value} was asked for; reset it to "
                "its defaults with the vendor's viewer, or look there for what forbids it"
            )

    def _reset_offsets(self) -> None:
        """Set the region's offsets to their smallest: those of an earlier session would limit its size and move it."""
        for name in ("OffsetX", "OffsetY"):
            if self._has(name):
                self._set(name, self._node(name).min)

    def _set_exposure_hw(self, exposure_s: float) -> float:
        node = self._node("ExposureTime")
        node.value = 1e6 * exposure_s
        return 1e-6 * float(node.value)

    def _arm_hw(self, num_frames: int, roi: tuple[int, int]) -> None:
        if self._acquirer.is_acquiring():
            self._acquirer.stop()
        self._reset_offsets()
        for name, size in (("Height", roi[0]), ("Width", roi[1])):
            self._set(name, self._allowed(name, size))
        self._roi = roi
        self._acquirer.num_buffers = max(16, min(num_frames, 1024))
        self._acquirer.start()

    def _allowed(self, name: str, size: int) -> int:
        """The smallest size that the camera allows and that holds `size` pixels."""
        node = self._node(name)
        allowed = int(node.min + max(0, -(-(size - node.min) // node.inc)) * node.inc)
        if allowed > node.max:
            raise ConfigError(
                f"{name}: the camera allows {node.min} to {node.max} pixels in steps of {node.inc}, {size} were asked "
                "for; state a smaller shape_cam"
            )
        return allowed

    def _grab_hw(self, num_frames: int, timeout_s: float) -> tuple[list[np.ndarray], None]:
        frames: list[np.ndarray] = []
        end_s = time.monotonic() + timeout_s
        while len(frames) < num_frames and (left_s := end_s - time.monotonic()) > 0:
            buffer = self._acquirer.try_fetch(timeout=left_s)
            if buffer is None:
                break
            with buffer:
                frames.append(self._cropped(buffer.payload.components[0]))
        self._acquirer.stop()
        return frames, None

    def _cropped(self, component: Any) -> np.ndarray:
        """A copy of the region asked for: rows may be padded, and wider than asked for."""
        rows, cols = int(component.height), int(component.width)
        words = np.asarray(component.data).reshape(-1)
        # padding is stated in pixels by some and in bytes by others; the length of the data tells how long a row is
        stride = words.size // rows if rows else 0
        if stride < cols or rows < self._roi[0] or cols < self._roi[1]:
            raise OpuError(
                f"{type(self).__name__}: an image of {rows} x {cols} pixels in {words.size} words came back, expected "
                f"at least {self._roi[0]} x {self._roi[1]}"
            )
        return np.array(words[: rows * stride].reshape(rows, stride)[: self._roi[0], : self._roi[1]])

    def _close_hw(self) -> None:
        # forgotten before they are released: if releasing fails, opening again starts from new ones
        acquirer, harvester = self._acquirer, self._harvester
        self._acquirer = self._harvester = None
        try:
            if acquirer is not None:
                acquirer.destroy()
        finally:
            if harvester is not None:
                harvester.reset()
