"""Checks of what an OPU states about itself, made before anything is computed from it."""

import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Protocol

from odfa import arguments
from odfa.errors import ConfigError
from odfa.flow import Arm
from odfa.opu.replies import one_line
from odfa.settings import SettingError


class Stating(Protocol):
    """What `flaws` asks of an OPU by name; the other abilities are looked up one by one, because any may be absent."""

    @property
    def is_open(self) -> bool:
        """Whether the hardware is connected, so that all abilities are known."""

    @property
    def arms(self) -> AbstractSet[Arm]:
        """What the reference arm can do."""

    @property
    def carrier_cpp(self) -> tuple[float, float] | None:
        """Of a tilted arm: cycles per pixel of its fringes, down and across."""

    @property
    def pupil_cpp(self) -> float | None:
        """Of a tilted arm: radius of the pupil on the camera, in cycles per pixel."""


_ARMS = {"blocked", "stepped", "tilted"}
_CHECKS: dict[str, Callable[[str, object], object]] = {
    "opu_id": arguments.named,
    "shape_dmd": arguments.pair,
    "shape_cam": arguments.pair,
    "rate_hz": lambda name, value: _positive(name, value),
    "power_w": lambda name, value: _positive(name, value),
    "exposure_s": lambda name, value: _positive(name, value),
    "full_scale": lambda name, value: arguments.whole(name, value, 1),
    "arms": lambda name, value: _arms(name, value),
}


_BEFORE_OPENING = ("opu_id", "shape_dmd", "shape_cam", "arms")
"""What planning needs; drivers may learn the rest from the hardware when they open it."""


def flaws(opu: Stating) -> list[str]:
    """One line for each ability that `opu` does not state, or not sensibly; of one not open, what must be known."""
    # all flaws are collected, not the first one raised: whoever writes a driver wants to see the whole list
    found = []
    for name, check in _CHECKS.items():
        if not opu.is_open and name not in _BEFORE_OPENING:
            continue
        try:
            value = getattr(opu, name)
        except AttributeError:
            found.append(f"{name} is not stated")
            continue
        except Exception as error:  # a property may ask the hardware
            found.append(f"{name}: {one_line(error)}")
            continue
        try:
            check(name, value)
        except ConfigError as error:
            found.append(str(error))
    if opu.is_open and not found and "tilted" in opu.arms:
        try:
            arguments.all_in("carrier_cpp", opu.carrier_cpp, 2, -0.5, 0.5)
            arguments.real("pupil_cpp", opu.pupil_cpp, 0.0, 0.5, open_low=True, open_high=True)
        except ConfigError as error:
            found.append(f"a tilted arm needs carrier_cpp and pupil_cpp: {error}")
    return found


def _positive(name: str, value: object) -> None:
    arguments.real(name, value, 0.0, math.inf, open_low=True, open_high=True)


def _arms(name: str, value: object) -> None:
    if not isinstance(value, set | frozenset) or not value or not value <= _ARMS:
        raise SettingError(name, f"expected a set of {', '.join(sorted(_ARMS))}, got {value!r}")
