"""A measurement as a file: what was timed, on which machine, the constants that follow, and the errors they leave."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch

from odfa.devices import memory_bytes
from odfa.errors import DataError
from odfa.saved import Json
from odfa.scaling.family import Gpt
from odfa.scaling.fit import FitCheck, check_peaks, check_steps, fit_machine, summary
from odfa.scaling.measure import (
    ProjectionTiming,
    Timed,
    Timing,
    check_peaks_told,
    fastest_of,
    peak_bytes,
    time_projections,
    time_steps,
)
from odfa.scaling.processor import PROCESSORS, Processor
from odfa.scaling.timed import timed_on
from odfa.session.memory import check_tf32, multiplying
from odfa.settings import require
from odfa.store import environment
from odfa.store.folder import folder_errors, write_json
from odfa.store.provenance import computed_on
from odfa.structured import compiler_on

HERE = "here"
"""Name of the machine that was measured."""
_CPU = torch.device("cpu")
_LIKE_CPU, _LIKE_GPU = "xeon-2", "h100"
"""Presets whose power and links a machine has that none of them is named after."""
TIMED_METHODS: tuple[Timed, ...] = ("bp", "shallow", "dfa", "odfa")


@dataclass(frozen=True, kw_only=True)
class MachineMeasurement:
    """Everything that was measured on one machine."""

    environment: Json
    """Versions, commit, processor, threads and device of the machine that was measured."""
    fitted: Sequence[Timing]
    """Steps that the constants are fitted to."""
    checked: Sequence[Timing]
    """Steps that the predictions are compared with."""
    projections: Sequence[ProjectionTiming]
    peaks: Sequence[tuple[Gpt, str, int]]
    """Network, method, bytes; empty where memory was left out."""

    def machine(self) -> Processor:
        """The device that was measured, its constants fitted; weights and activations are float32.

        Power and links are a preset's: the one that an accelerator is named after, or one of its kind; so is the
        memory where torch does not tell it.
        """
        return fit_machine(self.fitted, self.projections, self._start())

    def _start(self) -> Processor:
        known = self.environment
        if known.get("device", "cpu") == "cpu":
            return replace(PROCESSORS[_LIKE_CPU], name=HERE, source=f"measured: {known.get('cpu', 'unknown')}")
        name = str(known["device_name"])
        like = PROCESSORS[next((one for one in PROCESSORS if one in name.lower()), _LIKE_GPU)]
        return replace(
            like,
            name=HERE,
            source=f"measured: {name}; power and links as assumed of {like.name}",
            memory_bytes=float(known.get("device_memory_bytes") or like.memory_bytes),
            uncertainty=PROCESSORS[_LIKE_CPU].uncertainty,
        )

    def steps(self, machine: Processor) -> list[FitCheck]:
        """Step times that nothing was fitted to."""
        return check_steps(self.checked, machine)

    def memory(self) -> list[FitCheck]:
        """Peak memory, for which nothing is fitted at all."""
        return check_peaks(self.peaks)

    def to_json(self) -> Json:
        """The measurement as its file holds it."""
        return {
            "environment": self.environment,
            "fitted": [timing.to_json() for timing in self.fitted],
            "checked": [timing.to_json() for timing in self.checked],
            "projections": [asdict(timing) for timing in self.projections],
            "peaks": [{"gpt": asdict(gpt), "method": method, "bytes": size} for gpt, method, size in self.peaks],
        }

    @classmethod
    def from_json(cls, values: Json) -> "MachineMeasurement":
        """The measurement that `to_json` gave these values of; KeyError or TypeError where they are none."""
        return cls(
            environment=values["environment"],
            fitted=[Timing.from_json(timing) for timing in values["fitted"]],
            checked=[Timing.from_json(timing) for timing in values["checked"]],
            projections=[ProjectionTiming(**timing) for timing in values["projections"]],
            peaks=[(Gpt(**peak["gpt"]), peak["method"], peak["bytes"]) for peak in values["peaks"]],
        )

    def write(self, path: Path) -> None:
        """Write the measurement to a file, as a whole or not at all.

        Raises:
            RunFolderError: it cannot be written.
        """
        with folder_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, self.to_json())


def read(path: Path) -> MachineMeasurement:
    """The measurement in a file that `odfa study measure` wrote.

    Raises:
        DataError: the file is missing or not such a one.
    """
    try:
        return MachineMeasurement.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; run odfa study measure out={path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no measurement ({type(error).__name__}); run odfa study measure out={path}"
        ) from error


def require_repeats(repeats: int) -> None:
    """Refuse a number of rounds that says nothing of the spread, or that takes days.

    Raises:
        SettingError: it is not from 2 to 1,000.
    """
    require(2 <= repeats <= 1000, "repeats", "2 to 1,000 rounds", repeats)


def planned(*, memory: bool, repeats: int, device: torch.device = _CPU, precision: str = "float32") -> Json:
    """The steps, projections and peaks that `measure_machine` would measure; nothing is run.

    Raises:
        ConfigError: too few repeats, peak memory where nobody tells it, or tf32 where there is none.
    """
    require_repeats(repeats)
    if precision == "tf32":
        check_tf32(device, "precision")
    if memory:
        check_peaks_told(device)
    shapes = timed_on(device)
    return {
        "device": str(device),
        "precision": precision,
        "repeats": repeats,
        "methods": list(TIMED_METHODS),
        "fitted": [asdict(gpt) for gpt in shapes.fitted],
        "checked": [asdict(gpt) for gpt in shapes.checked],
        "frozen_weights": [asdict(gpt) for gpt in shapes.fitted],
        "projections": [dict(zip(("rows", "inputs", "outputs"), shape, strict=True)) for shape in shapes.projected],
        "peaks": [asdict(gpt) for gpt in shapes.peaked] if memory else [],
    }


def measure_machine(
    *,
    memory: bool,
    repeats: int,
    note: Callable[[str], None],
    device: torch.device = _CPU,
    precision: str = "float32",
) -> MachineMeasurement:
    """Time steps, projections and, unless left out, peak memory on a device of this machine; ten minutes on two cores.

    Raises:
        ConfigError: too few repeats, peak memory where nobody tells it, or tf32 where there is none.
    """
    planned(memory=memory, repeats=repeats, device=device, precision=precision)
    shapes = timed_on(device)
    # Fitted and checked networks in turns, and projections before and after: a machine that is slowed for some minutes
    # by others slows all of them.
    jobs: list[tuple[Gpt, Sequence[Timed]]] = [
        (gpt, (*TIMED_METHODS, "inputs") if gpt in shapes.fitted else TIMED_METHODS)
        for gpt in _in_turns(shapes.fitted, shapes.checked)
    ]
    with multiplying(precision):
        before = time_projections(repeats, device, shapes.projected)
        timings = time_steps(jobs, repeats=repeats, note=note, device=device)
        projections = fastest_of(before, time_projections(repeats, device, shapes.projected))
    fitted = [timing for timing in timings if timing.gpt in shapes.fitted]
    checked = [timing for timing in timings if timing.gpt in shapes.checked]
    peaks = []
    for gpt in shapes.peaked if memory else ():
        for method in TIMED_METHODS:
            peaks += [(gpt, method, peak_bytes(gpt, method, device))]
        note(
            f"peak memory, {gpt.depth} blocks of {gpt.width}, {gpt.tokens} tokens: {peaks[-4][2] / 2**20:.0f} MiB by bp"
        )
    return MachineMeasurement(
        environment={**environment(), **_told_of(device), "precision": precision},
        fitted=fitted,
        checked=checked,
        projections=projections,
        peaks=peaks,
    )


def _told_of(device: torch.device) -> Json:
    """The device, its name, what computes projections there, and its memory where torch tells it."""
    found = {**computed_on(device), "projections_by": compiler_on(device)}
    memory = memory_bytes(device)
    return found if memory is None else {**found, "device_memory_bytes": memory}


def measured_points(measurement: MachineMeasurement, machine: Processor) -> list[Json]:
    """The measured steps as points of the study, the twin's among them."""
    return [
        {
            "family": "measured",
            "processor": machine.name,
            "opu": None,
            "vectors": "token",
            "parameters": check.gpt.parameters,
            "depth": check.gpt.depth,
            "width": check.gpt.width,
            "tokens": check.gpt.tokens,
            "method": f"{check.method} (twin)" if check.method == "odfa" else check.method,
            "measured_s": check.measured,
            "predicted_s": check.predicted,
            "energy_j": check.predicted * machine.power_w,
        }
        for check in measurement.steps(machine)
    ]


def _in_turns(*several: Sequence[Gpt]) -> list[Gpt]:
    return [gpt for turn in zip_longest(*several) for gpt in turn if gpt is not None]


def report(measurement: MachineMeasurement, machine: Processor) -> Json:
    """Constants, and predicted beside measured, as plain values."""
    steps, peaks = measurement.steps(machine), measurement.memory()
    # by method besides: a large error of one kind of step would not show in the median of all
    by_method = {
        method: summary([check for check in steps if check.method == method])
        for method in dict.fromkeys(check.method for check in steps)
    }
    return {
        "environment": measurement.environment,
        "machine": asdict(machine),
        "weight_gradients": [
            {**asdict(bp.gpt), "backward_s": bp.backward_s, "weight_gradients_s": bp.backward_s - frozen.backward_s}
            for bp in measurement.fitted
            for frozen in measurement.fitted
            if bp.method == "bp" and frozen.method == "inputs" and bp.gpt == frozen.gpt
        ],
        "steps": [_row(check, "s") for check in steps],
        "step_errors": {"all": summary(steps), **by_method},
        "peaks": [_row(check, "bytes") for check in peaks],
        "peak_errors": {"all": summary(peaks)} if peaks else {},
    }


def _row(check: FitCheck, unit: str) -> Json:
    return {
        **asdict(check.gpt),
        "method": check.method,
        f"measured_{unit}": check.measured,
        f"predicted_{unit}": check.predicted,
        "off": check.off,
    }
