"""Workers that share OPUs over a network, event by event: queueing, stragglers, lost workers, recalibration.

Beside it the closed form that ignores all of these, so that one can see where they begin to matter.
"""

import math
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from odfa.data import needs
from odfa.errors import ConfigError
from odfa.settings import Settings

Events = Generator[Any, Any, None]
MOST = 10_000
"""Workers, and OPUs."""
_SHORTEST_S, _LONGEST_S = 1e-9, 1e9


@dataclass(frozen=True, kw_only=True)
class Sharing(Settings):
    """Who shares what; every worker repeats: compute, send errors, have them projected, receive."""

    workers: int = 8
    """Processors, or groups of them, that train."""
    opus: int = 1
    """OPUs that serve whoever comes first."""
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
    """Time that one takes, during which the OPU serves nobody."""

    def __post_init__(self) -> None:
        for name in ("workers", "opus"):
            if not 0 < getattr(self, name) <= MOST:
                raise ConfigError(f"{name}: expected a positive number up to {MOST:,}, got {getattr(self, name)}")
        for name in ("compute_s", "light_s"):
            if not _SHORTEST_S <= getattr(self, name) <= _LONGEST_S:
                raise ConfigError(
                    f"{name}: expected {_SHORTEST_S:g} to {_LONGEST_S:g} seconds, got {getattr(self, name)}"
                )
        for name in ("transfer_s", "straggle", "repair_s", "recalibrate_s"):
            if not 0 <= getattr(self, name) <= _LONGEST_S:
                raise ConfigError(f"{name}: expected 0 to {_LONGEST_S:g}, got {getattr(self, name)}")
        for name in ("lost_every_s", "recalibrate_every_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}: expected a positive time in seconds or none, got {value}")
        every_s, step_s = self.recalibrate_every_s, self.compute_s + self.light_s
        if every_s is not None and every_s < step_s / 1000:
            raise ConfigError(
                f"recalibrate_every_s: expected at least a thousandth of a step, {step_s / 1000:g} s, got {every_s:g}"
            )
        if self.lost_every_s is not None and self.lost_every_s < self.compute_s / 5:
            raise ConfigError(
                f"lost_every_s: expected at least a fifth of compute_s={self.compute_s:g}, or no step is ever done, "
                f"got {self.lost_every_s:g}"
            )

    @property
    def available(self) -> float:
        """Share of the time that an OPU serves."""
        if self.recalibrate_every_s is None:
            return 1.0
        return self.recalibrate_every_s / (self.recalibrate_every_s + self.recalibrate_s)


ROOMS = {
    "stragglers 0": Sharing(),
    "stragglers 0.1": Sharing(straggle=0.1),
    "stragglers 0.5": Sharing(straggle=0.5),
    "in step, stragglers 0.1": Sharing(straggle=0.1, synchronous=True),
}
"""What is looked at when nothing else is asked for."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What comes out."""

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
    """Without chance and without queues, what no arrangement can exceed.

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
    if steps < 10:
        raise ConfigError(f"steps: expected at least 10, got {steps}")
    with needs("simpy", "simulations of shared OPUs"):
        import simpy
    env = simpy.Environment()
    floor = _Floor(sharing=sharing, env=env, steps=steps, draw=np.random.default_rng(seed))
    floor.network = simpy.Resource(env, capacity=1)
    floor.opus = simpy.PriorityResource(env, capacity=sharing.opus)
    floor.barrier = env.event()
    working = [env.process(floor.work()) for _ in range(sharing.workers)]
    if sharing.recalibrate_every_s is not None:
        for place in range(sharing.opus):
            env.process(floor.recalibrate((place + 1) / sharing.opus * sharing.recalibrate_every_s))
    env.run(until=simpy.AllOf(env, working))
    return floor.outcome()


@dataclass(kw_only=True)
class _Floor:
    """The simulated room and what is written down in it."""

    sharing: Sharing
    env: Any
    steps: int
    draw: np.random.Generator
    network: Any = None
    opus: Any = None
    barrier: Any = None
    waiting: int = 0
    lost: int = 0
    done: list[tuple[float, float]] = field(default_factory=list)
    """Time at which errors were back, and how long that took, step by step."""

    def work(self) -> Events:
        """The life of a worker."""
        s, env = self.sharing, self.env
        lost_at = self._next_loss()
        # workers that run freely do not all begin together
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

    def recalibrate(self, first_s: float) -> Events:
        """What takes an OPU away now and then; it goes before whoever waits."""
        s = self.sharing
        yield self.env.timeout(first_s)
        while True:
            yield from self._hold(self.opus, s.recalibrate_s, priority=-1)
            yield self.env.timeout(s.recalibrate_every_s)

    def _hold(self, resource: Any, seconds: float, **how: int) -> Events:
        if not seconds:
            return
        with resource.request(**how) as turn:
            yield turn
            yield self.env.timeout(seconds)

    def _meet(self) -> Events:
        self.waiting += 1
        if self.waiting == self.sharing.workers:
            self.waiting = 0
            gone, self.barrier = self.barrier, self.env.event()
            gone.succeed()
        else:
            yield self.barrier

    def _spread(self) -> float:
        """A factor of mean one."""
        if not self.sharing.straggle:
            return 1.0
        sigma2 = math.log1p(self.sharing.straggle**2)
        return float(self.draw.lognormal(-sigma2 / 2, math.sqrt(sigma2)))

    def _next_loss(self) -> float:
        every_s = self.sharing.lost_every_s
        return math.inf if every_s is None else self.env.now + float(self.draw.exponential(every_s))

    def outcome(self) -> Throughput:
        """Figures of the steps after the first tenth, up to the moment when the first worker may have stopped."""
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
