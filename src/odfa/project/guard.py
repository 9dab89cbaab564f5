"""Watching for drift: witness patterns, shown again and again, tell how much of the matrix is still the one calibrated.

Shape letters: `W` witnesses · `D` inputs · `M` optical modes.
"""

import cmath
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from odfa import arguments
from odfa.errors import CheckpointError, Drifted
from odfa.flow import Frames
from odfa.keys import torch_generator
from odfa.saved import State, check_state, shown
from odfa.settings import MAX_COUNT, Settings, require

_STREAM = int.from_bytes(b"witness")
_LEAST_GAIN, _MOST_GAIN = 0.2, 5.0
"""A gain outside these limits is more than a laser's power fluctuates: a beam is blocked, or the alignment is lost."""
_REMEMBERED = {
    "_then_WM": (None, Tensor),
    "_repeatability": float,
    "_since": int,
    "_recalibrations": int,
    "_warned": bool,
    "_correlation": float,
    "_phase_rad": float,
    "_gain": float,
}
"""Attributes that a watch saves, and the type of each."""
_FIELDS = (torch.float32, torch.complex64)
"""Types of the fields that demodulators give: real ones and complex ones."""

Show = Callable[[Frames], Tensor]
"""Shows patterns on the OPU and returns their field (W, M)."""
_MOST_WITNESSES = 10_000
"""Patterns that a look shows; each takes memory and light as a vector of a batch does."""


class DriftWarning(UserWarning):
    """The medium has moved away from its calibration; the run goes on."""


@dataclass(frozen=True, kw_only=True)
class Guard(Settings):
    """When the witnesses are shown, and what is done when their fields have changed."""

    every: int = 1024
    """Projected vectors between two looks."""
    num_witnesses: int = 8
    """Random ternary vectors shown at each look."""
    correct: bool = True
    """Take the measured common phase and gain out of the fields that follow."""
    warn_below: float = 0.95
    """Warn once when the correlation with the calibration falls below."""
    stop_below: float = 0.8
    """Correlation below which the feedback cannot be trusted: a third of its power is then something else."""
    when_lost: Literal["stop", "recalibrate"] = "stop"
    """What to do then: end with `Drifted`, or take the matrix as it now is for the new calibration and go on (random
    feedback learns to use a new matrix; an aligned head does not)."""
    max_recalibrations: int = 3
    """Recalibrations after which a run stops nevertheless."""

    def __post_init__(self) -> None:
        arguments.whole("every", self.every, 1, MAX_COUNT)
        arguments.whole("num_witnesses", self.num_witnesses, 1, _MOST_WITNESSES)
        arguments.whole("max_recalibrations", self.max_recalibrations, 0)
        arguments.kind("correct", self.correct, bool)
        arguments.real("warn_below", self.warn_below, 0.0, 1.0)
        arguments.real("stop_below", self.stop_below, 0.0, self.warn_below)
        require(self.when_lost in ("stop", "recalibrate"), "when_lost", "stop or recalibrate", self.when_lost)
        acts = self.when_lost == "recalibrate" or self.max_recalibrations == type(self).max_recalibrations
        require(acts, "max_recalibrations", "nothing set with when_lost=stop", self.max_recalibrations)

    def watch(self, num_inputs: int) -> "Watch":
        """A watch over one projection of this width."""
        return Watch(self, num_inputs)


def witnesses(num_inputs: int, num_witnesses: int) -> Frames:
    """Ternary vectors, a quarter of the entries +1 and a quarter -1, the same for everybody who asks for this size."""
    # keyed by the number of inputs alone, not by the run: a calibration made once serves every run and every machine
    generator = torch_generator(_STREAM, num_inputs)
    level_WD = torch.rand((num_witnesses, num_inputs), generator=generator)
    level_WD[:, 0] *= 0.5  # no witness is empty, however few the inputs
    bits_W2D = torch.stack([level_WD < 0.25, (level_WD >= 0.25) & (level_WD < 0.5)], dim=1)
    gain_W2 = torch.tensor([1.0, -1.0]).expand(num_witnesses, 2).contiguous()
    return Frames(bits_NFD=bits_W2D, gain_NF=gain_W2, encoder="witness")


def overlap(then_WM: Tensor, now_WM: Tensor) -> complex:
    """Normalised inner product <then, now> / (|then| |now|): modulus the correlation, angle the common phase."""
    wide = torch.complex128 if then_WM.is_complex() else torch.float64
    then, now = then_WM.to(wide).flatten(), now_WM.to(wide).flatten()
    norms = float(then.norm() * now.norm())
    return complex(torch.linalg.vecdot(then, now).item()) / norms if norms > 0 else 0j


class Watch:
    """The witness fields of one projection as they were calibrated, and what the last look at them measured."""

    def __init__(self, guard: Guard, num_inputs: int) -> None:
        self._guard, self._frames = guard, witnesses(num_inputs, guard.num_witnesses)
        self._then_WM: Tensor | None = None
        self._repeatability = 1.0
        self._since, self._recalibrations, self._warned = 0, 0, False
        self._correlation, self._phase_rad, self._gain = 1.0, 0.0, 1.0

    @property
    def frames(self) -> Frames:
        """Patterns of the witnesses, plus and minus for each."""
        return self._frames

    @property
    def diagnostics(self) -> dict[str, float]:
        """Correlation with the calibration (noise taken out), common phase and gain at the last look."""
        return {
            "witness_correlation": self._correlation,
            "witness_phase_rad": self._phase_rad,
            "witness_gain": self._gain,
            "recalibrations": float(self._recalibrations),
        }

    @property
    def due(self) -> int:
        """Vectors that may be projected before the next look."""
        return self._guard.every - self._since if self._then_WM is not None else 0

    def advance(self, num_vectors: int) -> None:
        """Note that vectors were projected."""
        self._since += num_vectors

    def start_from(self, then_WM: Tensor, repeatability: float) -> None:
        """Compare with the witness fields of a calibration from now on; the next look comes before the next vector."""
        # due at once: the medium may have moved between the calibration and this run
        self._then_WM, self._repeatability, self._since = then_WM, repeatability, self._guard.every

    def look(self, show: Show) -> None:
        """Show the witnesses, compare their fields with the calibrated ones, and calibrate, warn or stop.

        Raises:
            Drifted: the correlation is below `stop_below`, or the light is far brighter or darker than it was.
        """
        self._since = 0
        if self._then_WM is None:
            self._calibrate(show)
            return
        now_WM = show(self._frames)
        self._measure(now_WM)
        if self._correlation < self._guard.stop_below or not _LEAST_GAIN < self._gain < _MOST_GAIN:
            self._lost(show)
        elif self._correlation < self._guard.warn_below and not self._warned:
            self._warned = True
            warnings.warn(
                f"the optical matrix correlates {self._correlation:.3f} with its calibration (warning below "
                f"{self._guard.warn_below}, stopping below {self._guard.stop_below})",
                DriftWarning,
                stacklevel=2,
            )

    def corrected(self, field_NM: Tensor) -> Tensor:
        """The field with the measured common phase and gain taken out."""
        # A path that lengthens turns all modes by one phase, and a laser that dims scales them by one factor: two
        # numbers, found with the witnesses, undo both. What changes mode by mode cannot be undone.
        if not self._guard.correct:
            return field_NM
        turn = cmath.rect(1.0 / self._gain, -self._phase_rad)
        return field_NM * (turn if field_NM.is_complex() else turn.real)

    def _measure(self, now_WM: Tensor) -> None:
        assert self._then_WM is not None
        if now_WM.shape != self._then_WM.shape:  # a wider projection begins with the outputs of a narrower one
            common = min(now_WM.shape[1], self._then_WM.shape[1])
            now_WM, self._then_WM = now_WM[:, :common], self._then_WM[:, :common]
        z = overlap(self._then_WM, now_WM)
        if now_WM.is_complex():
            correlation, self._phase_rad = abs(z), cmath.phase(z)
        else:  # one quadrature cannot tell a turned phase from another matrix
            correlation, self._phase_rad = z.real, 0.0
        # noise alone lowers the correlation of a field with itself to `repeatability`; only what is below that is drift
        self._correlation = min(1.0, correlation / self._repeatability)
        self._gain = float(now_WM.norm() / self._then_WM.norm())

    def _calibrate(self, show: Show) -> None:
        # twice: a matrix that changes between two looks must not become the reference for later ones
        first_WM, second_WM = show(self._frames), show(self._frames)
        repeatability = abs(overlap(first_WM, second_WM))
        if repeatability < self._guard.stop_below:
            raise Drifted(
                f"the same witness patterns shown twice correlate {repeatability:.3f}, at least "
                f"{self._guard.stop_below} is needed to trust the feedback; raise the light or the number of modes, "
                "and look for vibration"
            )
        self._then_WM, self._repeatability = first_WM, repeatability
        self._correlation, self._phase_rad, self._gain, self._warned = 1.0, 0.0, 1.0, False

    def _lost(self, show: Show) -> None:
        found = f"correlation {self._correlation:.3f}, light {self._gain:.2f} times"
        if self._guard.when_lost == "stop" or self._recalibrations >= self._guard.max_recalibrations:
            raise Drifted(
                f"the optical matrix is no longer the one calibrated ({found}; {self._recalibrations} recalibrations); "
                f"expected at least {self._guard.stop_below}; let the instrument settle and calibrate again"
            )
        self._recalibrations += 1
        warnings.warn(f"the optical matrix was lost ({found}) and calibrated anew", DriftWarning, stacklevel=2)
        self._calibrate(show)

    def state_dict(self) -> State:
        """Witness fields, counters and the figures of the last look."""
        return {name: getattr(self, name) for name in _REMEMBERED}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of a watch over so many witnesses.
        """
        check_state(state, _REMEMBERED, "guard")
        then_WM, count = state["_then_WM"], self._guard.num_witnesses
        if then_WM is not None and not self._fits(then_WM):
            raise CheckpointError(
                f"the saved state does not fit: guard._then_WM: expected fields of {count} witnesses, float32 or "
                f"complex64, finite and not all zero, got {shown(then_WM)}"
            )
        for name in _REMEMBERED:
            setattr(self, name, state[name])

    def _fits(self, then_WM: Tensor) -> bool:
        kind = then_WM.ndim == 2 and then_WM.dtype in _FIELDS and len(then_WM) == self._guard.num_witnesses
        return bool(kind and then_WM.isfinite().all() and then_WM.any())
