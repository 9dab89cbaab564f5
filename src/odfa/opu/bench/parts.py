"""The parts of a bench: a modulator, a camera, perhaps a phase shifter. Public methods check, `_hw` methods act.

Shape letters: `F` frames · `Y X` mirror rows, columns · `P Q` camera rows, columns.
"""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from numbers import Real
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from odfa import arguments
from odfa.errors import ConfigError, FrameMismatch, OpuError
from odfa.opu.replies import ask, counts_of, numbers_of
from odfa.units import check

_P = ParamSpec("_P")
_R = TypeVar("_R")
_MOST_BITS = 30
"""Largest depth of counts, which are held as int32."""
_EXPOSURE_STEP = 2.0
"""Exposures come in steps of rows or clock cycles; off by more than this factor, something else sets the exposure."""


class _Part:
    """Opened once, closed once; whatever a vendor's library raises becomes one named error."""

    _opened: bool = False

    def open(self) -> None:
        """Claim the hardware.

        Raises:
            Disconnected: the vendor's library fails.
        """
        if not self._opened:
            try:
                self._ask(self._open_hw)
            except Exception:
                with contextlib.suppress(Exception):  # release what was claimed, and report the first error
                    self._close_hw()
                raise
            self._opened = True

    def close(self) -> None:
        """Release the hardware of this part; nothing happens if it is not open."""
        if self._opened:
            self._opened = False
            self._ask(self._close_hw)

    def _ask(self, act: Callable[_P, _R], *arguments: _P.args, **settings: _P.kwargs) -> _R:
        return ask(type(self).__name__, act, *arguments, **settings)

    def check_stated(self) -> None:
        """Refuse a part that does not state its abilities, or not sensibly.

        Raises:
            ConfigError: an ability is missing or makes no sense.
        """
        try:
            self._check_stated()
        except (AttributeError, ConfigError) as error:
            raise ConfigError(f"{type(self).__name__}: {error}") from error

    def _check_stated(self) -> None:
        """Check each stated ability; ConfigError or AttributeError for the first that is missing or makes no sense."""

    def _open_hw(self) -> None:
        """Claim the hardware of this part."""

    def _close_hw(self) -> None:
        """Release the hardware; also called after an `_open_hw` that failed half-way."""


class AbstractModulator(_Part, ABC):
    """A binary mirror array that plays a sequence and triggers the camera once per frame."""

    shape_dmd: tuple[int, int]
    """Rows and columns of mirrors."""
    max_rate_hz: float
    """Fastest frame rate of the array, frames per second."""

    def _check_stated(self) -> None:
        self.shape_dmd = arguments.pair("shape_dmd", self.shape_dmd)
        check("max_rate_hz", self.max_rate_hz)

    def play(self, mirrors_FYX: Tensor, rate_hz: float) -> None:
        """Upload and start a sequence; returns once it runs.

        Raises:
            ConfigError: images of another shape, or a rate beyond the array's.
            Disconnected: the vendor's library fails.
        """
        if mirrors_FYX.dtype != torch.bool or mirrors_FYX.shape[1:] != self.shape_dmd:
            raise ConfigError(
                f"expected bool images of {self.shape_dmd}, got {mirrors_FYX.dtype} {mirrors_FYX.shape[1:]}"
            )
        if not 0 < rate_hz <= self.max_rate_hz:
            raise ConfigError(f"expected a rate up to {self.max_rate_hz:g} Hz, got {rate_hz:g}")
        self._ask(self._play_hw, mirrors_FYX, rate_hz)

    @abstractmethod
    def _play_hw(self, mirrors_FYX: Tensor, rate_hz: float) -> None:
        """Upload the images and start them, one trigger pulse per frame."""


class AbstractCamera(_Part, ABC):
    """A camera that exposes one frame per trigger."""

    shape_cam: tuple[int, int]
    """Rows and columns of pixels."""
    bits: int
    """Depth of the counts: full scale is 2^bits - 1."""
    left_justified: bool = False
    """True if `bits` bits come in the high end of a 16-bit word, as many vendors do with 10 and 12 bits."""
    exposure_range_s: tuple[float, float] = (1e-5, 1.0)
    """Shortest and longest exposure that can be set, seconds."""
    exposure_s: float = 400e-6
    """Exposure as it is set, seconds."""
    row_s: float = 0.0
    """Time to read one row; the frame rate follows from it."""
    _armed_for: tuple[int, int] | None = None

    @property
    def full_scale(self) -> int:
        """Largest count, 2^bits - 1."""
        return (1 << self.bits) - 1

    def _check_stated(self) -> None:
        self.shape_cam = arguments.pair("shape_cam", self.shape_cam)
        arguments.whole("bits", self.bits, 1, 16 if self.left_justified else _MOST_BITS)
        arguments.all_in("exposure_range_s", self.exposure_range_s, 2, 0.0, math.inf)
        arguments.real("exposure_s", self.exposure_s, *self.exposure_range_s)
        arguments.real("row_s", self.row_s, 0.0, 1.0)

    def set_exposure(self, exposure_s: float) -> None:
        """Set the exposure of the frames that follow.

        Raises:
            ConfigError: outside the camera's range.
            OpuError: the camera takes an exposure that is off by more than a factor of two.
        """
        check("exposure_s", exposure_s)
        low, high = self.exposure_range_s
        if not low <= exposure_s <= high:
            raise ConfigError(f"expected an exposure between {low:g} and {high:g} s, got {exposure_s:g}")
        taken_s: object = self._ask(self._set_exposure_hw, exposure_s)
        if taken_s is None:
            taken_s = exposure_s
        step = _EXPOSURE_STEP
        if not isinstance(taken_s, Real) or not exposure_s / step <= float(taken_s) <= exposure_s * step:
            raise OpuError(
                f"{type(self).__name__}: the camera took an exposure of {taken_s!r} s, {exposure_s:g} s were asked "
                "for; switch off what sets it besides (automatic exposure, a frame rate), or ask for one that it has"
            )
        self.exposure_s = float(taken_s)  # not the one asked for: seconds per frame follow from the real one

    def arm(self, num_frames: int, roi: tuple[int, int]) -> None:
        """Get ready for triggers, dropping whatever older frames are still in the buffers."""
        self._armed_for = roi
        self._ask(self._arm_hw, num_frames, roi)

    def grab(self, num_frames: int, timeout_s: float) -> Tensor:
        """The frames since `arm`, integer counts (F, P, Q), right-justified; fewer if the time is up.

        Raises:
            FrameMismatch: frames of another shape, gaps in the camera's own frame numbers, or words that are
                left-justified undeclared.
            OpuError: no integers, or odd frame numbers; Disconnected where the vendor's library fails.
        """
        who = type(self).__name__
        reply = self._ask(self._grab_hw, num_frames, timeout_s)
        if not isinstance(reply, tuple) or len(reply) != 2:
            raise OpuError(f"{who}: _grab_hw returned a {type(reply).__name__}, expected counts and frame numbers")
        counts_FPQ = counts_of(who, reply[0], self._armed_for or self.shape_cam)
        ids = numbers_of(who, reply[1], len(counts_FPQ))
        if ids and ids != list(range(ids[0], ids[0] + len(ids))):
            raise FrameMismatch(f"{who}: frame numbers have gaps or repeats: {_runs(ids)}")
        if self.left_justified:
            counts_FPQ = counts_FPQ.to(torch.int32) >> (16 - self.bits)
        elif counts_FPQ.numel() and int(counts_FPQ.max()) > self.full_scale:
            raise FrameMismatch(
                f"{who}: counts up to {int(counts_FPQ.max())} from a camera of {self.bits} bits; its "
                "words are probably left-justified: set left_justified = True"
            )
        kind = torch.uint8 if self.bits <= 8 else torch.int16 if self.bits < 16 else torch.int32
        return counts_FPQ.to(kind)

    @abstractmethod
    def _arm_hw(self, num_frames: int, roi: tuple[int, int]) -> None:
        """Empty the buffers and wait for `num_frames` triggers, reading `roi` = (rows, columns)."""

    @abstractmethod
    def _grab_hw(self, num_frames: int, timeout_s: float) -> tuple[object, object]:
        """Frames (F, P, Q) as integers (a tensor, an array, a list of images), and the camera's frame numbers, or None
        if it does not count them."""

    def _set_exposure_hw(self, exposure_s: float) -> float | None:
        """Set the exposure time; returns what the camera took, or None where it cannot tell."""
        return None


class AbstractShifter(_Part, ABC):
    """A phase shifter in the reference arm."""

    def set(self, phase_rad: float) -> None:
        """Move to a phase and wait until it is there.

        Raises:
            ConfigError: no finite phase.
            Disconnected: the vendor's library fails.
        """
        arguments.real("phase_rad", phase_rad, -math.inf, math.inf, open_low=True, open_high=True)
        self._ask(self._set_hw, phase_rad)

    @abstractmethod
    def _set_hw(self, phase_rad: float) -> None:
        """Move the shifter to this phase of the reference, and return when it is there."""


def _runs(ids: list[int]) -> str:
    jumps = [f"{a} then {b}" for a, b in pairwise(ids) if b != a + 1]
    return ", ".join(jumps[:3])
