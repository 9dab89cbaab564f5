"""GenICam cameras (GigE Vision, USB3 Vision, CoaXPress, Camera Link HS) through `harvesters`."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odfa.device.bench.parts import AbstractCamera
from odfa.device.drivers.library import load


class GenICamCamera(AbstractCamera):
    """A camera that takes one frame per hardware trigger on `trigger_source`."""

    def __init__(
        self,
        producer: str,
        shape_cam: tuple[int, int],
        *,
        bits: int = 8,
        left_justified: bool = False,
        serial: str | None = None,
        trigger_source: str = "Line0",
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
            exposure_range_s: shortest and longest exposure.
            row_s: time to read a row.
        """
        self.shape_cam, self.bits, self.left_justified = shape_cam, bits, left_justified
        self.exposure_range_s, self.row_s = exposure_range_s, row_s
        self._producer, self._serial, self._trigger = producer, serial, trigger_source
        self._harvester: Any = None
        self._acquirer: Any = None
        self._roi = shape_cam

    def _open_hw(self) -> None:
        core = load("harvesters.core", extra="genicam", for_what="a GenICam camera")
        self._harvester = core.Harvester()
        self._harvester.add_file(self._producer, check_existence=True)
        self._harvester.update()
        self._acquirer = self._harvester.create(None if self._serial is None else {"serial_number": self._serial})
        nodes = self._acquirer.remote_device.node_map
        nodes.PixelFormat.value = f"Mono{self.bits}"
        nodes.TriggerSelector.value, nodes.TriggerMode.value = "FrameStart", "On"
        nodes.TriggerSource.value = self._trigger
        nodes.ExposureMode.value = "Timed"
        self._set_exposure_hw(self.exposure_s)

    def _set_exposure_hw(self, exposure_s: float) -> None:
        self._acquirer.remote_device.node_map.ExposureTime.value = 1e6 * exposure_s

    def _arm_hw(self, num_frames: int, roi: tuple[int, int]) -> None:
        if self._acquirer.is_acquiring():
            self._acquirer.stop()
        nodes = self._acquirer.remote_device.node_map
        nodes.Height.value, nodes.Width.value = roi
        self._roi = roi
        self._acquirer.num_buffers = max(16, min(num_frames, 1024))
        self._acquirer.start()

    def _grab_hw(self, num_frames: int, timeout_s: float) -> tuple[Tensor, list[int] | None]:
        frames: list[np.ndarray] = []
        end_s = time.monotonic() + timeout_s
        while len(frames) < num_frames and (left_s := end_s - time.monotonic()) > 0:
            buffer = self._acquirer.try_fetch(timeout=left_s)
            if buffer is None:
                break
            with buffer:
                component = buffer.payload.components[0]
                frames.append(np.array(component.data).reshape(component.height, component.width))
        self._acquirer.stop()
        counts_FPQ = np.stack(frames) if frames else np.zeros((0, *self._roi), dtype=np.uint16)
        return torch.from_numpy(counts_FPQ.astype(np.int32)), None

    def _close_hw(self) -> None:
        if self._acquirer is not None:
            self._acquirer.destroy()
        if self._harvester is not None:
            self._harvester.reset()
        self._acquirer = self._harvester = None
