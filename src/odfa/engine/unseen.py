"""Figures of backward passes, left on their device until somebody looks: each look waits for all that it was given."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odfa.engine.rules import AbstractRule
from odfa.errors import NonFinite
from odfa.flow import Light, Share, StepRecord


def is_near(device: torch.device) -> bool:
    """Whether reading a number waits for nobody: on the processor, or where there are sizes alone."""
    return device.type in ("cpu", "meta")


def may_wait(device: torch.device, model: nn.Module, rule: AbstractRule) -> bool:
    """Whether what is not finite may be found when backward is done: it pays, and nothing will have moved by then.

    Rules that need more than the error learn in backward, and a fused optimiser moves weights there.
    """
    fused = any(p._post_accumulate_grad_hooks for p in model.parameters())
    return not (is_near(device) or fused or rule.needs - {"error"})


def complain_loss(value: float) -> str:
    """What to say of a loss that is not finite."""
    return f"the loss is {value} and the optimiser has not moved; lower the learning rate or see the batch"


def fetch(parts: Sequence[Tensor]) -> list[list[float]]:
    """The numbers in each of some small tensors, in one transfer."""
    if len(parts) == 1 and parts[0].ndim == 1:
        return [parts[0].tolist()]
    # counts stay whole numbers in float64, which an mps device does not have
    flat = [part.detach().flatten().to(torch.float32 if part.device.type == "mps" else torch.float64) for part in parts]
    values: list[float] = torch.cat([one.to(flat[0].device) for one in flat]).tolist() if flat else []
    ends = [sum(map(len, flat[: number + 1])) for number in range(len(flat))]
    return [values[end - len(one) : end] for one, end in zip(flat, ends, strict=True)]


class Stopwatch:
    """Seconds between two moments of a device."""

    def __init__(self, device: torch.device) -> None:
        """Start; an accelerator marks the moment when it comes to it, and nobody waits."""
        self._device, self._begin = device, moment(device)
        self._end = self._begin

    def stop(self) -> None:
        """Mark the end."""
        self._end = moment(self._device)

    @property
    def seconds(self) -> float:
        """What lay between; waits for the end."""
        begin, end = self._begin, self._end
        if isinstance(begin, float) or isinstance(end, float):
            return float(end) - float(begin)  # type: ignore[arg-type]
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000


def moment(device: torch.device) -> "float | torch.Event":
    """Now, in seconds; of an accelerator, an event behind all that it has been given."""
    if is_near(device):
        return time.perf_counter()
    event = torch.Event(device, enable_timing=True)
    event.record()
    return event


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a rule answered one output error with."""

    names: Sequence[str]
    norms_L: Tensor
    """Of the signals, by name."""
    sizes: Sequence[Tensor]
    """Largest entries of projected rows that nobody has looked at."""
    identity: str
    """Of the projection."""
    diagnostics: Mapping[str, float | Share]
    """Of the projection; what has been counted on an accelerator still there."""
    light: Light
    watch: Stopwatch

    @property
    def numbers(self) -> list[Tensor]:
        """What `record` wants to know."""
        return [self.norms_L, *self.sizes, *(share.count for share in self._there.values())]

    @property
    def _there(self) -> dict[str, Share]:
        return {name: value for name, value in self.diagnostics.items() if isinstance(value, Share)}

    def record(self, norms: list[float], rest: Sequence[list[float]]) -> StepRecord:
        """The same with numbers: those of `numbers`, after the norms.

        Raises:
            NonFinite: the error or a signal contains NaN or infinity.
        """
        sizes, there = rest[: len(self.sizes)], rest[len(self.sizes) :]
        seen = {name: value / share.whole for (name, share), (value,) in zip(self._there.items(), there, strict=True)}
        if not all(math.isfinite(size) for one in sizes for size in one):
            raise NonFinite("the output error contains NaN or infinity; lower the learning rate or look at the batch")
        if not all(map(math.isfinite, norms)):
            raise NonFinite(f"the feedback of {self.identity} contains NaN or infinity; the optimiser has not moved")
        return StepRecord(
            signal_norms=dict(zip(self.names, norms, strict=True)),
            diagnostics={
                name: seen[name] if isinstance(value, Share) else value for name, value in self.diagnostics.items()
            },
            light=self.light,
            projecting_s=self.watch.seconds,
        )


class Unseen:
    """Answers of backward passes whose numbers are still on the device, oldest first."""

    def __init__(self) -> None:
        self._answered: list[Answered] = []

    def add(self, answered: Answered) -> None:
        """Keep one more answer."""
        self._answered.append(answered)

    def clear(self) -> None:
        """Forget them: the backward pass has failed."""
        self._answered = []

    @property
    def numbers(self) -> list[Tensor]:
        """What `see` wants to know."""
        return [number for answered in self._answered for number in answered.numbers]

    def see(self, values: Sequence[list[float]]) -> StepRecord | None:
        """The newest answer with its numbers, which are `values`; None if there was nothing unseen.

        Raises:
            NonFinite: something in one of the answers is NaN or infinite.
        """
        answers, rest, record = self._answered, list(values), None
        self.clear()
        for answered in answers:
            norms, *others = (rest.pop(0) for _ in answered.numbers)
            record = answered.record(norms, others)
        return record

    def __getstate__(self) -> dict[str, object]:
        """A copy has run nothing."""
        return {"_answered": []}
