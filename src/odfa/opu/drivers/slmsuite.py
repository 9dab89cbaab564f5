"""A phase modulator and a camera of `slmsuite` as one OPU, frame by frame without a trigger."""

import math
from typing import Any

import numpy as np
from torch import Tensor

from odfa import arguments
from odfa.errors import ConfigError
from odfa.flow import Arm
from odfa.opu.base import AbstractOpu
from odfa.opu.mirror_layout import MirrorLayout
from odfa.opu.replies import ask
from odfa.units import check


class SlmsuiteOpu(AbstractOpu):
    """On and off with a phase modulator: a lit input shows the base phase, a dark one adds a checkerboard of 0 and pi.

    The checkerboard diffracts the light of a dark input out of the camera's field, so the field is affine in the bits,
    as with mirrors: E = sum_d bits_d (A_d - leak_d) + const. Macro-pixels must hold at least 2 x 2 modulator pixels.
    The camera sees intensity only: read out with `Anchor` or `Intensity`.
    """

    arms: frozenset[Arm] = frozenset({"blocked"})
    saturated_limit = 0.2

    def __init__(
        self,
        slm: Any,
        camera: Any,
        *,
        opu_id: str,
        grid: tuple[int, int] = (16, 16),
        base_phase_rad: np.ndarray | None = None,
        rate_hz: float = 30.0,
        power_w: float = 50.0,
        timeout_s: float = 1.0,
    ) -> None:
        """Wrap two slmsuite objects, simulated or real.

        Args:
            slm: has `shape`, `settle_time_s` and `set_phase(phase)`.
            camera: has `shape`, `bitdepth`, `flush()`, `get_image()` and `get_exposure()`.
            opu_id: names the optics; change it whenever they are touched.
            grid: rows and columns of macro-pixels; the modulator's shape must be a multiple of twice it.
            base_phase_rad: phase under all patterns (a wavefront correction, a diffuser); None: flat.
            rate_hz: frames per second that the pair reaches.
            power_w: electrical power.
            timeout_s: longest wait for an image.

        Raises:
            ConfigError: the grid does not fit the modulator, or an argument is out of range or of the wrong kind.
            Disconnected: the objects lack what is listed above.
        """
        arguments.named("opu_id", opu_id)
        grid = arguments.pair("grid", grid)
        for name, value in (("rate_hz", rate_hz), ("power_w", power_w)):
            check(name, value)
        arguments.real("timeout_s", timeout_s, 0.0, math.inf, open_low=True, open_high=True)
        shape, shape_cam, bits = ask(
            opu_id, lambda: (tuple(map(int, slm.shape)), tuple(map(int, camera.shape)), int(camera.bitdepth))
        )
        if any(size % (2 * cells) for size, cells in zip(shape, grid, strict=True)):
            raise ConfigError(
                f"grid {grid} does not divide the modulator's {shape} pixels into blocks of 2 x 2 and more"
            )
        self._slm, self._camera, self._timeout_s = slm, camera, timeout_s
        self.opu_id, self.shape_dmd = opu_id, grid
        self.shape_cam = arguments.pair("the camera's shape", shape_cam)
        self.rate_hz, self.power_w, self.full_scale = rate_hz, power_w, (1 << bits) - 1
        self._base_YX = np.zeros(shape) if base_phase_rad is None else np.asarray(base_phase_rad, dtype=float)
        if self._base_YX.shape != shape or not np.isfinite(self._base_YX).all():
            raise ConfigError(f"base_phase_rad must be finite and of shape {shape}, got {self._base_YX.shape}")
        self._checks_YX = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2 * np.pi
        self._block = (shape[0] // grid[0], shape[1] // grid[1])

    @property
    def exposure_s(self) -> float:  # type: ignore[override]
        """Exposure that the camera is set to."""
        return float(ask(self.opu_id, self._camera.get_exposure))

    def frame_s(self, roi: tuple[int, int]) -> float:
        """Seconds a frame: the stated period, or settling and exposure where they take longer."""
        settle_s = float(ask(self.opu_id, getattr, self._slm, "settle_time_s"))
        return max(1.0 / self.rate_hz, settle_s + self.exposure_s)

    def _run_hw(
        self, bits_FD: Tensor, *, phase_S: tuple[float, ...], arm: Arm, roi: tuple[int, int]
    ) -> list[np.ndarray]:
        layout = MirrorLayout(shape_dmd=self.shape_dmd, num_inputs=bits_FD.shape[1])
        return [self._image(lit_YX, roi) for lit_YX in layout.draw(bits_FD).numpy()]

    def _image(self, lit_YX: np.ndarray, roi: tuple[int, int]) -> np.ndarray:
        lit_YX = np.kron(lit_YX, np.ones(self._block, dtype=bool))
        # settle: the liquid crystal takes milliseconds to turn; flush: the camera may hold images from before; no
        # averaging and no HDR: both change what a count means
        self._slm.set_phase(np.where(lit_YX, self._base_YX, self._base_YX + self._checks_YX), settle=True)
        self._camera.flush()
        image_PQ = self._camera.get_image(timeout_s=self._timeout_s, averaging=False, hdr=False)
        return np.array(image_PQ)[: roi[0], : roi[1]]
