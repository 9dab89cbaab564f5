"""What a run gives back."""

from dataclasses import asdict, dataclass
from typing import Any


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
    light: dict[str, float]
    """frames, seconds, joules, ops_peak, ops_useful."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunResult":
        """Inverse of `to_json`."""
        return cls(**values)


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
