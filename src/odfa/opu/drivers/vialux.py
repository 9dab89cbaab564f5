"""Vialux mirror arrays through ALP4lib, a wrapper of the vendor's own library."""

from typing import Any

import torch
from torch import Tensor

from odfa import arguments
from odfa.errors import ConfigError, MissingExtra
from odfa.opu.bench.parts import AbstractModulator
from odfa.opu.drivers.library import load


class VialuxDmd(AbstractModulator):
    """A DMD with an ALP-4 board. Its synch output must trigger the camera."""

    def __init__(
        self,
        shape_dmd: tuple[int, int],
        *,
        version: str = "4.3",
        library_dir: str | None = None,
        max_rate_hz: float = 10_000.0,
    ) -> None:
        """Name the array; the board is claimed when the bench opens.

        Args:
            shape_dmd: rows and columns of mirrors (ALP's nSizeY, nSizeX).
            version: version of the vendor's ALP library.
            library_dir: folder with the vendor's library; None: where its installer puts it.
            max_rate_hz: fastest binary frame rate of the array.

        Raises:
            ConfigError: an argument is out of range or of the wrong kind.
        """
        self.shape_dmd, self.max_rate_hz = shape_dmd, max_rate_hz
        self.check_stated()
        arguments.named("version", version)
        self._version, self._library_dir = version, library_dir
        self._alp: Any = None
        self._loaded = False

    def _open_hw(self) -> None:
        module = load("ALP4", extra="vialux", for_what="a Vialux DMD")
        try:
            self._alp = module.ALP4(version=self._version, libDir=self._library_dir)
        except (OSError, ValueError) as error:
            raise MissingExtra(
                f"a Vialux DMD needs the vendor's ALP-{self._version} library ({error}); install it from the vendor "
                "and name its folder: VialuxDmd(..., library_dir=...)"
            ) from error
        self._alp.Initialize()
        found = (self._alp.nSizeY, self._alp.nSizeX)
        if found != self.shape_dmd:
            raise ConfigError(f"the array has {found[0]} x {found[1]} mirrors, shape_dmd says {self.shape_dmd}")

    def _play_hw(self, mirrors_FYX: Tensor, rate_hz: float) -> None:
        if self._loaded:  # the board's memory is limited: a second sequence may not fit beside the first
            self._alp.Halt()
            self._alp.FreeSeq()
            self._loaded = False
        self._alp.SeqAlloc(nbImg=len(mirrors_FYX), bitDepth=1)
        self._loaded = True
        # ALP takes one byte a mirror, frame after frame, row by row, and looks at the highest bit
        self._alp.SeqPut(imgData=(mirrors_FYX.to(torch.uint8) * 255).flatten().numpy())
        self._alp.SetTiming(pictureTime=round(1e6 / rate_hz))
        self._alp.Run(loop=False)

    def _close_hw(self) -> None:
        alp, self._alp = self._alp, None
        loaded, self._loaded = self._loaded, False
        if alp is not None:
            try:
                alp.Halt()
                if loaded:
                    alp.FreeSeq()
            finally:
                alp.Free()
