"""The mirror array: finite contrast, mirrors that never move.

Shape letters: `D` inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from odfa import arguments
from odfa.keys import numpy_generator
from odfa.settings import Settings, require

_STREAM = int.from_bytes(b"mirrors")


@dataclass(frozen=True, kw_only=True)
class Mirrors(Settings):
    """Faults of the mirror array, each off unless set."""

    leak: float | None = None
    """Field of a dark mirror as a share of a lit one's (finite contrast, off-state diffraction)."""
    stuck_off: float | None = None
    """Share of mirrors that are always dark."""
    stuck_on: float | None = None
    """Share of mirrors that are always lit."""
    seed: int = 0
    """Key of which mirrors are stuck."""

    def __post_init__(self) -> None:
        for name in ("leak", "stuck_off", "stuck_on"):
            if getattr(self, name) is not None:  # None: off
                arguments.real(name, getattr(self, name), 0.0, 1.0, open_high=True)
        arguments.whole("seed", self.seed, 0)
        stuck = (self.stuck_off or 0) + (self.stuck_on or 0)
        require(stuck < 1, "stuck_on", "less than 1 together with stuck_off, so that a mirror moves", stuck)

    def unread(self) -> Mapping[str, str]:
        """The key, where no mirror is stuck."""
        return {} if self.stuck_off or self.stuck_on else {"seed": "no mirror is stuck (stuck_off, stuck_on)"}

    def response(self, num_inputs: int, num_mirrors: int) -> tuple[Tensor, Tensor]:
        """Weight and offset, each (D,) float64: the field that input d sends is weight x + offset.

        An input is a macro-pixel of k = num_mirrors // D mirrors of which `off` and `on` are stuck; with leak eps its
        mean field is ((k - off - on) (x + eps (1 - x)) + on + eps off) / k. (Which part of a macro-pixel is stuck also
        changes how its field scatters; that is left out.)
        """
        # drawn as counts for each macro-pixel: D draws instead of one for each of a million mirrors
        k, eps = max(1, num_mirrors // num_inputs), self.leak or 0.0
        generator = numpy_generator(_STREAM, self.seed, num_inputs)
        shares = [self.stuck_off or 0.0, self.stuck_on or 0.0]
        drawn = generator.multinomial(k, [*shares, max(0.0, 1.0 - sum(shares))], size=num_inputs)
        off_D, on_D, free_D = (torch.from_numpy(column).double() / k for column in drawn.T.copy())
        return free_D * (1 - eps), on_D + eps * (free_D + off_D)
