"""Workers that share OPUs over a network, event by event: queueing, stragglers, lost workers, recalibration.

Beside it the closed form that ignores all of these, so that one can see where they begin to matter.
"""

import math
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from odfa.data import needs
from odfa.settings import Settings, require

if TYPE_CHECKING:
    import simpy

Events = Generator["simpy.Event", object, None]
MOST = 10_000
"""Largest number of workers, and of OPUs."""
_SHORTEST_S, _LONGEST_S = 1e-9, 1e9


@dataclass(frozen=True, kw_only=True)
class SharingConditions(Settings):
    """How workers share OPUs; every worker repeats: compute, send errors, have them projected, receive."""

    opus: int = 1
    """OPUs, each of which serves workers in the order in which they ask."""
    compute_s: float = 1.0
    """Time of a step that a worker needs for itself."""
    light_s: float = 0.1
    """Time of a step on an OPU."""
    transfer_s: float = 0.0
    """Time of a step on the network that all share, there and back."""
    straggle: float = 0.0
    """Standard deviation of the compute time over its mean (log-normal)."""
    synchronous: bool = False
    """Workers wait for one another after every step, as data parallelism does."""
    lost_every_s: float | None = None
    """Mean time until a worker is lost, with its step; None: never."""
    repair_s: float = 0.0
    """Time until a lost worker is back."""
    recalibrate_every_s: float | None = None
    """Time between two recalibrations of an OPU; None: never."""
    recalibrate_s: float = 0.0
    """Time that one recalibration takes, during which the OPU projects nothing."""

    def __post_init__(self) -> None:
        require(0 < self.opus <= MOST, "opus", f"a positive number up to {MOST:,}", self.opus)
        for name in ("compute_s", "light_s"):
            value = getattr(self, name)
            require(_SHORTEST_S <= value <= _LONGEST_S, name, f"{_SHORTEST_S:g} to {_LONGEST_S:g} seconds", value)
        for name in ("transfer_s", "straggle", "repair_s", "recalibrate_s"):
            require(0 <= getattr(self, name) <= _LONGEST_S, name, f"0 to {_LONGEST_S:g}", getattr(self, name))
        for name in ("lost_every_s", "recalibrate_every_s"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, name, "a positive time in seconds or none", value)
        # shorter times would keep the simulation from ever finishing a step
        every_s, step_s = self.recalibrate_every_s, self.compute_s + self.light_s
        expected = f"at least a thousandth of a step, {step_s / 1000:g} s"
        require(every_s is None or every_s >= step_s / 1000, "recalibrate_every_s", expected, every_s)
        lost_s = self.lost_every_s
        expected = f"at least a fifth of compute_s={self.compute_s:g}, or no step is ever done"
        require(lost_s is None or lost_s >= self.compute_s / 5, "lost_every_s", expected, lost_s)

    @property
    def available(self) -> float:
        """Share of the time that an OPU serves."""
        if self.recalibrate_every_s is None:
            return 1.0
        return self.recalibrate_every_s / (self.recalibrate_every_s + self.recalibrate_s)


@dataclass(frozen=True, kw_only=True)
class Sharing(SharingConditions):
    """A number of workers under these conditions."""

    workers: int = 8
    """Processors, or groups of them, that train."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.workers <= MOST, "workers", f"a positive number up to {MOST:,}", self.workers)


ROOMS = {
    "stragglers 0": Sharing(),
    "stragglers 0.1": Sharing(straggle=0.1),
    "stragglers 0.5": Sharing(straggle=0.5),
    "in step, stragglers 0.1": Sharing(straggle=0.1, synchronous=True),
}
"""Conditions that are simulated when none are given."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Figures of a simulation, or of the closed form."""

    steps_per_s: float
    """Steps of all workers together."""
    latency_s: float
    """Median time from sending errors to having them projected."""
    latency_p99_s: float
    """The time that one in a hundred exceeds."""
    utilisation: float
    """Share of the time that OPUs project."""
    lost: int = 0
    """Steps lost with their workers."""


def closed_form(sharing: Sharing) -> Throughput:
    """Throughput without random times and queues, which no arrangement can exceed.

    Free running:  X = min(N / (compute + transfer + light), K available / light, 1 / transfer).
    In step:       X = N / (compute + N transfer + ceil(N / K) light): all errors come at once.
    """
    s = sharing
    if s.synchronous:
        last_s = s.workers * s.transfer_s + math.ceil(s.workers / s.opus) * s.light_s
        rate, latency_s, slowest_s = s.workers / (s.compute_s + last_s), last_s / 2, last_s
    else:
        limits = [s.workers / (s.compute_s + s.transfer_s + s.light_s), s.opus * s.available / s.light_s]
        rate = min(limits + ([1 / s.transfer_s] if s.transfer_s else []))
        latency_s = slowest_s = max(s.transfer_s + s.light_s, s.workers / rate - s.compute_s)
    return Throughput(
        steps_per_s=rate,
        latency_s=latency_s,
        latency_p99_s=slowest_s,
        utilisation=rate * s.light_s / s.opus,
    )


def simulate(sharing: Sharing, *, steps: int = 500, seed: int = 0) -> Throughput:
    """Every worker does `steps` steps; the first tenth is not counted.

    Raises:
        MissingExtra: simpy is absent. ConfigError: fewer than ten steps.
    """
    require(steps >= 10, "steps", "at least 10", steps)
    with needs("simpy", "simulations of shared OPUs"):
        import simpy
    env = simpy.Environment()
    simulation = _Simulation(
        sharing=sharing,
        env=env,
        network=simpy.Resource(env, capacity=1),
        opus=simpy.PriorityResource(env, capacity=sharing.opus),
        barrier=env.event(),
        steps=steps,
        draw=np.random.default_rng(seed),
    )
    # recalibrations never end by themselves: the simulation runs until the workers are done
    working = [env.process(simulation.work()) for _ in range(sharing.workers)]
    every_s = sharing.recalibrate_every_s
    if every_s is not None:
        # evenly spread, so that never more OPUs than needed are away at once
        for place in range(sharing.opus):
            env.process(simulation.recalibrate((place + 1) / sharing.opus * every_s, every_s))
    env.run(until=simpy.AllOf(env, working))
    return simulation.outcome()


@dataclass(kw_only=True)
class _Simulation:
    """One simulation: the resources that workers wait for, and the times that their steps took."""

    sharing: Sharing
    env: "simpy.Environment"
    network: "simpy.Resource"
    opus: "simpy.PriorityResource"
    barrier: "simpy.Event"
    """What workers in step wait for after each step."""
    steps: int
    draw: np.random.Generator
    waiting: int = 0
    lost: int = 0
    done: list[tuple[float, float]] = field(default_factory=list)
    """Time at which errors were back, and how long that took, step by step."""

    def work(self) -> Events:
        """Events of one worker: compute, then wait for network, OPU and network in turn, as often as there are steps.

        A worker that is lost while it computes does that step again after its repair.
        """
        s, env = self.sharing, self.env
        lost_at = self._next_loss()
        # starting all at once would make a queue at the OPUs that free-running workers do not have
        if not s.synchronous:
            yield env.timeout(self.draw.uniform(0, s.compute_s + s.light_s))
        for _ in range(self.steps):
            computing_s = s.compute_s * self._spread()
            while env.now + computing_s > lost_at:
                yield env.timeout(max(0.0, lost_at - env.now) + s.repair_s)
                self.lost += 1
                lost_at = self._next_loss()
            yield env.timeout(computing_s)
            sent_s = env.now
            yield from self._hold(self.network, s.transfer_s / 2)
            yield from self._hold(self.opus, s.light_s)
            yield from self._hold(self.network, s.transfer_s / 2)
            self.done.append((env.now, env.now - sent_s))
            if s.synchronous:
                yield from self._meet()

    def recalibrate(self, first_s: float, every_s: float) -> Events:
        """Events of one OPU's recalibrations, the first after `first_s`; they are served before all waiting workers."""
        yield self.env.timeout(first_s)
        while True:
            yield from self._hold(self.opus, self.sharing.recalibrate_s, priority=-1)
            yield self.env.timeout(every_s)

    def _hold(self, resource: "simpy.Resource", seconds: float, **how: int) -> Events:
        if not seconds:
            return
        with resource.request(**how) as turn:
            yield turn
            yield self.env.timeout(seconds)

    def _meet(self) -> Events:
        # the new barrier comes before the release: the next meeting may begin while some are still leaving this one
        self.waiting += 1
        if self.waiting == self.sharing.workers:
            self.waiting = 0
            gone, self.barrier = self.barrier, self.env.event()
            gone.succeed()
        else:
            yield self.barrier

    def _spread(self) -> float:
        """A factor of mean one for the time of one step: log-normal, standard deviation `straggle`."""
        if not self.sharing.straggle:
            return 1.0
        sigma2 = math.log1p(self.sharing.straggle**2)
        return float(self.draw.lognormal(-sigma2 / 2, math.sqrt(sigma2)))

    def _next_loss(self) -> float:
        every_s = self.sharing.lost_every_s
        return math.inf if every_s is None else self.env.now + float(self.draw.exponential(every_s))

    def outcome(self) -> Throughput:
        """Figures of the steps after the first tenth, up to the moment when the first worker may have stopped."""
        # the first tenth fills the queues and the last one empties them: neither shows the rate of the steady state
        times_s, latencies_s = (np.array(column) for column in zip(*sorted(self.done), strict=True))
        first, last = len(times_s) // 10, len(times_s) - len(times_s) // 10
        rate = (last - first) / (times_s[last - 1] - times_s[first - 1])
        counted = latencies_s[first:last]
        return Throughput(
            steps_per_s=float(rate),
            latency_s=float(np.median(counted)),
            latency_p99_s=float(np.quantile(counted, 0.99)),
            utilisation=float(rate * self.sharing.light_s / self.sharing.opus),
            lost=self.lost,
        )


def sweep(sharing: Sharing, workers: Iterable[int], *, steps: int = 500) -> list[dict[str, float]]:
    """Simulation beside closed form over a number of workers."""
    rows = []
    for count in workers:
        chosen = replace(sharing, workers=count)
        simulated, ideal = simulate(chosen, steps=steps), closed_form(chosen)
        rows.append(
            {
                "workers": count,
                "steps_per_s": simulated.steps_per_s,
                "closed_form_steps_per_s": ideal.steps_per_s,
                "ratio": simulated.steps_per_s / ideal.steps_per_s,
                "latency_s": simulated.latency_s,
                "latency_p99_s": simulated.latency_p99_s,
                "utilisation": simulated.utilisation,
            }
        )
    return rows
