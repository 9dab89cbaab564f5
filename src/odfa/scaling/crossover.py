"""From which size on light is faster than backpropagation, how sure that is, and which term of the model makes it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from odfa.errors import Incompatible
from odfa.saved import Json
from odfa.scaling.cost import Cost, Model, step_cost
from odfa.scaling.method import PLANNED_METHODS, SWITCHES, StepLayout
from odfa.scaling.opu import Opu

FASTEST_BP = "fastest bp"
"""Baseline: at each size the fastest way of backpropagation that fits."""
Verdict = Literal["crosses", "always", "never", "tie", "too wide"]
_TIE = 0.01
"""Relative difference under which two ways count as equally fast, such as two that wait for the same link."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """Two ways to train that are compared along a family of models, on one processor with one OPU."""

    models: Sequence[Model]
    opu: Opu
    layout: StepLayout
    challenger: str
    baseline: str
    """A method's name, or `FASTEST_BP`."""

    def pair(self, model: Model, quantity: Callable[[Cost], float]) -> tuple[float, float]:
        """Time (or energy) of challenger and baseline; the challenger's is infinite where the OPU is too small."""
        try:
            ours = quantity(step_cost(model, PLANNED_METHODS[self.challenger], self.opu, self.layout))
        except Incompatible:
            ours = math.inf
        if self.baseline != FASTEST_BP:
            return ours, quantity(step_cost(model, PLANNED_METHODS[self.baseline], self.opu, self.layout))
        rivals = [
            (m, step_cost(model, m, self.opu, self.layout)) for m in PLANNED_METHODS.values() if m.learning == "bp"
        ]
        # ways that do not fit are left out; those that offload always count, so that there is something to compare with
        return ours, min(quantity(rival) for method, rival in rivals if rival.fits or method.offload)

    def scaled(self, processor: float, opu: float) -> "Race":
        """The same with a processor and an OPU that are faster by these factors."""
        return replace(self, models=[model.scaled(processor) for model in self.models], opu=self.opu.scaled(opu))

    def without(self, switch: str) -> "Race":
        """The same with one more term switched off."""
        return replace(self, layout=replace(self.layout, off=(*self.layout.off, switch)))


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """The size from which on the challenger is faster (or takes less energy) than the baseline."""

    verdict: Verdict
    """crosses: ahead from a size on; always: ahead from the smallest member on; never: behind at the largest; tie:
    within a hundredth there; too wide: the OPU cannot take the largest members."""
    parameters: float | None
    """Size from which on the challenger stays ahead; None unless it crosses."""
    last_ratio: float | None
    """Challenger over baseline at the largest member; None if the OPU cannot take it."""


def seconds(found: Cost) -> float:
    """Time of a step in seconds: the quantity that races compare unless told otherwise."""
    return found.step_s


def joules(found: Cost) -> float:
    """Energy of a step in joules."""
    return found.energy_j


def crossing(race: Race, quantity: Callable[[Cost], float] = seconds) -> Crossing:
    """Where the difference changes its sign for the last time, between members by a straight line over parameters.

    Times are nearly affine in the number of parameters, so that the line hits where the curves meet.
    """
    sizes = [model.parameters for model in race.models]
    pairs = [race.pair(model, quantity) for model in race.models]
    ours, theirs = pairs[-1]
    last = ours / theirs if math.isfinite(ours) else None
    if last is not None and abs(last - 1.0) < _TIE:
        return Crossing(verdict="tie", parameters=None, last_ratio=last)
    ahead_by = [theirs - ours for ours, theirs in pairs]
    # the last change of sign counts: among small members there may be several
    behind = [place for place, difference in enumerate(ahead_by) if difference <= 0.0]
    if not behind:
        return Crossing(verdict="always", parameters=None, last_ratio=last)
    if behind[-1] == len(pairs) - 1:
        return Crossing(verdict="too wide" if last is None else "never", parameters=None, last_ratio=last)
    place = behind[-1]
    before, after = ahead_by[place], ahead_by[place + 1]
    # a member that the OPU cannot take is infinitely far behind, so that the crossing lies at the next one
    share = before / (before - after) if math.isfinite(before) else 1.0
    parameters = sizes[place] + share * (sizes[place + 1] - sizes[place])
    return Crossing(verdict="crosses", parameters=parameters, last_ratio=last)


@dataclass(frozen=True, kw_only=True)
class Band:
    """A crossing, and where it lies if rates are off in the direction that suits light, or in the other one."""

    found: Crossing
    early: Crossing
    """The crossing with a slow processor and slow links, and a fast OPU."""
    late: Crossing
    """The crossing with a fast processor and fast links, and a slow OPU."""


def band(race: Race) -> Band:
    """The crossing with all rates as stated, and with all of them off by their uncertainty in either direction."""
    processor, opu = 1 + race.models[0].processor.uncertainty, 1 + race.opu.uncertainty
    return Band(
        found=crossing(race),
        early=crossing(race.scaled(1 / processor, opu)),
        late=crossing(race.scaled(processor, 1 / opu)),
    )


def attribution(race: Race) -> dict[str, Crossing]:
    """The crossing without each term in turn; terms that are off already are left out."""
    return {switch: crossing(race.without(switch)) for switch in SWITCHES if switch not in race.layout.off}


def made_by(found: Crossing, without: dict[str, Crossing]) -> str | None:
    """The term whose absence moves a crossing up most, or takes it away; None if none moves it by a tenth."""
    if found.verdict not in ("crosses", "always"):
        return None
    reach = {switch: _reach(crossed) for switch, crossed in without.items()}
    switch = max(reach, key=lambda name: reach[name])
    return switch if reach[switch] > 1.1 * _reach(found) else None


def _reach(found: Crossing) -> float:
    if found.verdict == "always":
        return 0.0
    return found.parameters if found.parameters is not None else math.inf


def crossing_json(found: Crossing) -> Json:
    """A crossing as JSON holds it: verdict, parameters, ratio at the largest member."""
    return {"verdict": found.verdict, "parameters": found.parameters, "ratio_at_largest": found.last_ratio}


def races(models: Sequence[Model], opu: Opu, layouts: Iterable[StepLayout], *, offloading: bool) -> list[Race]:
    """Light against backpropagation with unlimited memory; with offloading, against backpropagation that offloads and
    against the fastest way of it."""
    if not offloading:
        endless = (replace(layout, off=(*layout.off, "offloading")) for layout in layouts)
        return [Race(models=models, opu=opu, layout=layout, challenger="odfa", baseline="bp") for layout in endless]
    return [
        Race(models=models, opu=opu, layout=layout, challenger="odfa+offloading", baseline=baseline)
        for layout in layouts
        for baseline in ("bp+offloading", FASTEST_BP)
    ]
