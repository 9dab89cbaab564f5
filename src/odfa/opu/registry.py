"""OPUs by name: the twins of this package, and whatever other packages register.

A package offers an OPU by an entry point in its pyproject.toml: a class or a function that returns an `AbstractOpu`, or
a subclass of `OpuSettings`, whose settings can then be reached by `key=value`:

    [project.entry-points."odfa.opus"]
    my-opu = "my_lab.opu:MyOPU"
"""

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import isclass
from typing import Any, get_type_hints

from odfa import arguments
from odfa.errors import ConfigError, Disconnected, OdfaError
from odfa.opu.base import AbstractOpu
from odfa.opu.replies import one_line
from odfa.opu.settings import GROUP, OpuSettings
from odfa.opu.twin import TwinSettings
from odfa.settings import load, shown

_TWINS = {
    "twin": "digital twin; every setting of it can be given",
    "opu-2021": "digital twin of the 2021 instrument",
    "ideal": "digital twin without noise",
}
TWINS = frozenset(_TWINS)
"""Names of the twins of this package: each takes the settings of `TwinSettings` and `noise_seed`."""


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
    """The OPU registered as `name`, or named by `package.module:Name`; it claims its hardware at the first frame.

    Args:
        name: a name that `odfa opu list` shows, or `package.module:Name`.
        settings: fields of the settings class behind the name, and `noise_seed`, the key of a simulation's noise;
            where a class or a function is behind the name, its arguments.

    Raises:
        ConfigError: no OPU of this name, its settings are off, or what is registered is not an OPU.
        OpuError: the OPU cannot be made; Disconnected where its driver fails without saying more.
    """
    arguments.named("opu", name)
    try:
        opu = _maker(name)(**settings)
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
    found = [Entry(name=name, source="odfa", summary=summary) for name, summary in _TWINS.items()]
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        summary, problem = "", None
        try:
            summary = (_load(point).__doc__ or "").strip().partition("\n")[0]
        except ConfigError as error:
            problem = str(error)
        package = point.dist.name if point.dist else "unknown package"
        found.append(Entry(name=point.name, source=f"{package}: {point.value}", summary=summary, problem=problem))
    return found


def behind(name: str) -> Any:
    """What stands behind a name: settings, or the class or function that another package wrote.

    Raises:
        ConfigError: no OPU of this name, or its package does not load.
    """
    if name in TWINS:
        return TwinSettings.presets.get(name, TwinSettings)()
    found = _declared(name, load(name)) if ":" in name else _load(_entry_point(name))
    return found() if isclass(found) and issubclass(found, OpuSettings) else found


def _declared(name: str, found: Any) -> Any:
    """`found`, if it says of itself that it is or makes an OPU.

    A run folder holds such names and may come from a stranger: any function of any module could stand there, and would
    be called before what it returns is looked at.
    """
    made = found
    if not isclass(found) and callable(found):
        try:
            made = get_type_hints(found).get("return")
        except Exception:  # annotations may name what cannot be imported
            made = None
    if isinstance(found, OpuSettings) or (isclass(made) and issubclass(made, AbstractOpu | OpuSettings)):
        return found
    raise ConfigError(
        f"OPU {name}: expected a class of odfa.AbstractOpu, its settings, or a function that is annotated to return "
        f"one (def {name.rpartition(':')[2]}(…) -> AbstractOpu), got {shown(found)}"
    )


def _maker(name: str) -> Callable[..., Any]:
    """What makes the OPU from the keywords of `open_opu`."""
    found = behind(name)
    if isinstance(found, OpuSettings):
        usual = found
        return lambda noise_seed=0, **changes: dataclasses.replace(usual, **changes).build(noise_seed)
    made: Callable[..., Any] = found
    return made


def _entry_point(name: str) -> EntryPoint:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        known = [*_TWINS, *sorted(points)]
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
