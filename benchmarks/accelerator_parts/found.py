"""What a part of the benchmark measured, and what it could not."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

WHOLE = "all of it"
"""In place of a name, where a part failed as a whole."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how all parts measure."""

    device: torch.device
    small: bool
    compiler: bool | str
    """What `DFA(compile=…)` gets in figures of compiled code; False: nothing is compiled."""


@dataclass
class Found:
    """Lists of what was measured, one entry a round, and one line for each thing that failed, by name."""

    unit: str
    measured: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    """Sizes, and whatever else belongs into the file."""

    def why_not(self, name: str) -> str:
        """Why something was not measured."""
        return self.failed.get(name) or self.failed.get(WHOLE) or "was not measured"

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        return asdict(self)
