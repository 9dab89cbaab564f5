"""The constants of the machine at hand, fitted to what was timed on it, and the errors of predictions with them."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from odfa.arms import arm
from odfa.data import needs
from odfa.errors import DataError
from odfa.scaling.cost import update
from odfa.scaling.family import Gpt
from odfa.scaling.measure import ProjectionTiming, Timing
from odfa.scaling.memory import need
from odfa.scaling.method import PRECISIONS
from odfa.scaling.processor import Processor
from odfa.scaling.tally import matmul
from odfa.scaling.walk import Walk, walk_run
from odfa.units import range_of

RATES = ("matmul_flops_per_s", "attention_flops_per_s", "bytes_per_s", "call_s")
"""Fields of `Processor` that are fitted to steps."""
_TWIN = ("twin_vector_s", "twin_entry_s", "twin_product_s", "twin_pixel_s")
"""Fields that are fitted to projections through the digital twin."""
_PATTERNS, _PHASES = 2, 4
_PARTS = {"forward": 1.0, "backward": 1.0, "update": 0.3, "step": 1.5}
"""Weights of the residuals; updates are short and noisy."""


@cache
def walk_gpt(gpt: Gpt, method: str) -> Walk:
    """The walk of a GPT by a method, which the prediction of its timing is made from."""
    return walk_run(arm(gpt.run(), method), gpt.shape)


def phases_s(gpt: Gpt, method: str, processor: Processor) -> dict[str, float]:
    """Predicted seconds of a step on the machine that is measured, the projection in backward as it runs there."""
    # walks leave the projection out, because in a plan an OPU may do it; here the processor does it, within backward
    walk = walk_gpt(gpt, method)
    backward_s = processor.seconds(walk.backward)
    if method == "dfa":
        projected = matmul(walk.rows, walk.row_width, walk.signal_width, element_bytes=4)
        backward_s += processor.seconds(projected)
    if method == "odfa":
        backward_s += twin_s(processor, walk.rows, walk.row_width, walk.signal_width)
    found = {
        "forward": processor.seconds(walk.forward),
        "backward": backward_s,
        "update": processor.seconds(update(walk, PRECISIONS["float32"])),
    }
    return {**found, "step": sum(found.values())}


def twin_s(processor: Processor, rows: float, inputs: float, outputs: float) -> float:
    """Seconds of the digital twin (phase steps, ternary error) on a processor whose constants have been fitted.

    t = N (vector + D entry + D M product + pixels pixel),   pixels = 2 signs x 4 phases x M / 2 modes
    """
    counts = zip(_twin_counts(rows, inputs, outputs), _TWIN, strict=True)
    return sum(count * float(getattr(processor, name)) for count, name in counts)


def _twin_counts(rows: float, inputs: float, outputs: float) -> list[float]:
    """Vectors, entries, products and pixels of a projection through the twin."""
    return [rows, rows * inputs, rows * inputs * outputs, rows * _PATTERNS * _PHASES * outputs / 2]


def peak(gpt: Gpt, method: str) -> float:
    """Predicted bytes of a step at its fullest: weights, states, and what is alive besides.

    The digital projection stores its matrix; the twin its medium's, two float32 an entry, for half as many modes.
    """
    walk = walk_gpt(gpt, method)
    return need(walk, PRECISIONS["float32"], projection=4 * walk.row_width * walk.signal_width).total


def fit_machine(timings: Sequence[Timing], projections: Sequence[ProjectionTiming], start: Processor) -> Processor:
    """The machine at hand: `start` with its rates fitted, least squares on the logarithms of predicted over measured.

    Raises:
        MissingExtra: SciPy is absent. DataError: nothing to fit to.
    """
    with needs("scipy", "fits", otherwise="install scikit-learn, which brings it"):
        from scipy.optimize import least_squares, nnls
    steps = [timing for timing in timings if timing.method in ("bp", "shallow", "dfa")]
    if len(steps) < len(RATES) or not projections:
        raise DataError(f"expected at least {len(RATES)} timed steps and one projection to fit to, got {len(steps)}")

    def residuals(logs: np.ndarray) -> list[float]:
        machine = _with_rates(start, logs)
        return [
            weight * float(np.log(phases_s(timing.gpt, timing.method, machine)[part] / getattr(timing, f"{part}_s")))
            for timing in steps
            for part, weight in _PARTS.items()
        ]

    # on logarithms, so that a step of a millisecond counts as much as one of seconds, and no rate becomes negative
    found = least_squares(residuals, [np.log(getattr(start, name)) for name in RATES])
    rows = [_twin_counts(p.rows, p.inputs, p.outputs) for p in projections]
    # the twin's time is linear in its four constants; divided by what was measured, errors count relative to it
    relative = np.array(rows) / np.array([[p.twin_s] for p in projections])
    constants, _ = nnls(relative, np.ones(len(projections)))
    return replace(_with_rates(start, found.x), **_in_range(_TWIN, constants))


def _with_rates(start: Processor, logs: np.ndarray) -> Processor:
    with np.errstate(over="ignore"):  # a rate beyond every float ends at its limit too
        rates = _in_range(RATES, np.exp(logs))
    # the assumed energy a byte, at the measured rate, must not exceed the processor's assumed power
    most_j = (start.power_w - start.idle_w) / (2 * rates["bytes_per_s"])
    return replace(start, **rates, memory_j_per_byte=min(start.memory_j_per_byte, most_j))


def _in_range(names: Sequence[str], values: np.ndarray) -> dict[str, Any]:
    """The values by name; one that the timings say nothing of may run away: it ends where its unit does."""
    ranges = (limits for limits in map(range_of, names) if limits is not None)
    return {name: min(max(float(v), low), high) for name, v, (low, high, _) in zip(names, values, ranges, strict=True)}


@dataclass(frozen=True, kw_only=True)
class FitCheck:
    """One prediction, and the measurement that it is compared with."""

    gpt: Gpt
    method: str
    measured: float
    predicted: float

    @property
    def off(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1.0


def check_steps(timings: Iterable[Timing], machine: Processor) -> list[FitCheck]:
    """Step times as predicted with the fitted constants and as measured, one check for each."""
    return [
        FitCheck(
            gpt=timing.gpt,
            method=timing.method,
            measured=timing.step_s,
            predicted=phases_s(timing.gpt, timing.method, machine)["step"],
        )
        for timing in timings
        if timing.method != "inputs"
    ]


def check_peaks(measured: Iterable[tuple[Gpt, str, float]]) -> list[FitCheck]:
    """Peak memory as predicted and as measured, one check for each."""
    return [
        FitCheck(gpt=gpt, method=method, measured=size, predicted=peak(gpt, method)) for gpt, method, size in measured
    ]


def summary(checks: Sequence[FitCheck]) -> dict[str, float]:
    """Number of checks, median and largest relative error, regardless of sign."""
    errors = [abs(check.off) for check in checks]
    return {"count": len(errors), "median": statistics.median(errors), "worst": max(errors)}
