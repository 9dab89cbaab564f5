"""The final figures of a run, which result.json keeps."""

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from odfa.errors import RunFolderError
from odfa.saved import misfit

_FORM = {
    "status": str,
    "steps": int,
    "metric": {"name": str, "better": str, "value": float},
    "parameters": int,
    "seconds": float,
    "compute_s": float,
    "peak_memory_bytes": int,
    "light": {**dict.fromkeys(("seconds", "joules", "ops_peak", "ops_useful", "utilisation"), float), "frames": int},
}


class FinalMetric(TypedDict):
    """The task's metric on the test part."""

    name: str
    better: str
    """higher or lower."""
    value: float


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The final figures of a complete run; `to_json` is what `odfa train --json` prints."""

    status: str
    """Always complete: a run that stops early raises an error and has no result."""
    steps: int
    """Number of optimiser steps."""
    metric: FinalMetric
    """name, better (higher or lower), and value on the test part."""
    validation: dict[str, float]
    """Loss and metric on the validation part after the last epoch."""
    parameters: int
    """Number of weights in the model."""
    seconds: float
    """Time spent in training steps, those before an interruption included; evaluation and checkpoints do not count."""
    peak_memory_bytes: int
    """Largest resident memory of the process up to the end of the run."""
    compute_s: float
    """`seconds` without the time of the projections: the work that remains for the processor beside an OPU."""
    light: dict[str, float]
    """frames, seconds, joules, ops_peak (operations that the OPU could have done in these seconds), ops_useful
    (operations that the projections needed), utilisation (ops_useful over ops_peak)."""

    def to_json(self) -> dict[str, object]:
        """The figures as plain JSON values, by the names of the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunResult":
        """Inverse of `to_json`.

        Raises:
            RunFolderError: figures are missing, unknown or of the wrong type.
        """
        wrong = misfit(values, _FORM | {"validation": _figures(values)}, "result.json")
        if wrong:
            raise RunFolderError(f"result.json is damaged ({wrong}); restore it or start a new run")
        return cls(**values)


def _figures(values: dict[str, Any]) -> dict[str, type]:
    """The form of the field `validation`: the loss, the metric, and any further figures that are there."""
    # called before the form of `values` is known, hence the checks of types
    metric, given = values.get("metric"), values.get("validation")
    name = metric.get("name") if isinstance(metric, dict) else None
    return dict.fromkeys(["loss", str(name), *(given if isinstance(given, dict) else ())], float)
