"""What a run gives back."""

from dataclasses import asdict, dataclass
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The final figures of a complete run; `to_json` is what `odfa train --json` prints."""

    status: str
    """complete: a run that stops early raises instead."""
    steps: int
    """Optimiser steps done."""
    metric: dict[str, Any]
    """name, better (higher or lower), and value on the test part."""
    validation: dict[str, float]
    """Loss and metric on the validation part after the last epoch."""
    parameters: int
    """Trained numbers in the model."""
    seconds: float
    """Time spent in training steps, evaluation and checkpoints aside, over all sessions."""
    peak_memory_bytes: int
    """Largest resident size of the process so far."""
    compute_s: float
    """Of `seconds`, those without projecting: what a processor still does beside an OPU."""
    light: dict[str, float]
    """frames, seconds, joules, ops_peak (what the OPU could have done in these seconds), ops_useful (what was asked
    of it), utilisation (the second over the first)."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
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
    """The figures that a validation must have at least, those it has besides, and their form."""
    metric, given = values.get("metric"), values.get("validation")
    name = metric.get("name") if isinstance(metric, dict) else None
    return dict.fromkeys(["loss", str(name), *(given if isinstance(given, dict) else ())], float)
