"""OPUs by name: the twins of this package, and whatever other packages register.

A package offers an OPU by an entry point in its pyproject.toml, a class or function that returns an `AbstractOpu`:

    [project.entry-points."odfa.opus"]
    my-opu = "my_lab.opu:MyOPU"
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from odfa.errors import ConfigError, Disconnected, OdfaError
from odfa.opu import arguments
from odfa.opu.base import AbstractOpu
from odfa.opu.replies import one_line
from odfa.opu.twin import Twin

GROUP = "odfa.opus"
_BUILT_IN: dict[str, tuple[Callable[..., AbstractOpu], str]] = {
    "twin": (Twin, "digital twin; in Python with settings of one's own"),
    "opu-2021": (lambda **settings: Twin.preset("opu-2021", **settings), "digital twin of the 2021 instrument"),
    "ideal": (Twin.ideal, "digital twin without noise"),
}
TWINS = frozenset(_BUILT_IN)
"""Names of the twins of this package: each takes `seed`, the key of its medium, `noise_seed` and `drift`."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An OPU that can be opened by name."""

    name: str
    source: str
    """The package and object that it comes from."""
    summary: str
    problem: str | None = None
    """Why it does not load; None if it does."""


def open_opu(name: str, **settings: Any) -> AbstractOpu:
    """The OPU registered as `name`, made with `settings`; it claims its hardware at the first frame.

    Raises:
        ConfigError: no OPU of this name, its settings are off, or what is registered is not an OPU.
        OpuError: the OPU cannot be made; Disconnected where its driver fails without saying more.
    """
    arguments.named("opu", name)
    if name in _BUILT_IN:
        make: Callable[..., Any] = _BUILT_IN[name][0]
    else:
        make = _load(_entry_point(name))
    try:
        opu = make(**settings)
    except OdfaError:
        raise
    except TypeError as error:
        raise ConfigError(f"OPU {name} does not take these settings: {one_line(error)}") from error
    except Exception as error:  # a driver may raise anything
        raise Disconnected(f"OPU {name} could not be made: {one_line(error)}") from error
    if not isinstance(opu, AbstractOpu):
        raise ConfigError(
            f"OPU {name}: expected an odfa.AbstractOpu, got {type(opu).__name__}; let the entry point name a "
            "class or a function that returns one"
        )
    return opu


def list_opus() -> list[Entry]:
    """Every registered OPU, the twins first; one whose package does not load says why."""
    found = [Entry(name=name, source="odfa", summary=summary) for name, (_, summary) in _BUILT_IN.items()]
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        summary, problem = "", None
        try:
            summary = (_load(point).__doc__ or "").strip().partition("\n")[0]
        except ConfigError as error:
            problem = str(error)
        package = point.dist.name if point.dist else "unknown package"
        found.append(Entry(name=point.name, source=f"{package}: {point.value}", summary=summary, problem=problem))
    return found


def _entry_point(name: str) -> EntryPoint:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        known = [*_BUILT_IN, *sorted(points)]
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"unknown OPU {name!r}; {hint} (a package registers its own: docs/bench.md)")
    return points[name]


def _load(point: EntryPoint) -> Callable[..., Any]:
    try:
        made: Callable[..., Any] = point.load()
    except Exception as error:  # a plug-in may fail in any way when it is imported
        raise ConfigError(f"OPU {point.name} does not load: {one_line(error)}") from error
    return made
