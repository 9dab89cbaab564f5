"""Time a training step of small GPTs on the machine at hand, phase by phase, and the memory it takes."""

import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from odfa.arms import arm
from odfa.engine.unseen import Stopwatch
from odfa.errors import ConfigError
from odfa.keys import forked
from odfa.opu import Twin
from odfa.project import Gaussian, Optical
from odfa.saved import Json
from odfa.scaling.family import Gpt
from odfa.session import MemorySettings, attach, build_model
from odfa.session.memory import fitted_optimizer, give_back_freed

Timed = Literal["bp", "shallow", "dfa", "odfa", "inputs"]
"""Methods that are timed; inputs: backpropagation with the weights frozen, the gradients of inputs alone."""

FITTED = (
    *(Gpt(depth=2, width=128, tokens=256), Gpt(depth=8, width=128, tokens=512), Gpt(depth=2, width=128, tokens=2048)),
    *(Gpt(depth=4, width=256, tokens=512), Gpt(depth=8, width=256, tokens=1024), Gpt(depth=2, width=256, tokens=2048)),
    *(Gpt(depth=4, width=512, tokens=256), Gpt(depth=6, width=512, tokens=1024), Gpt(depth=2, width=512, tokens=2048)),
    *(Gpt(depth=4, width=1024, tokens=256), Gpt(depth=2, width=1024, tokens=1024)),
)
"""Networks whose steps the constants are fitted to."""
CHECKED = (
    *(Gpt(depth=12, width=128, tokens=256), Gpt(depth=24, width=128, tokens=1024)),
    *(Gpt(depth=3, width=192, tokens=1024), Gpt(depth=12, width=192, tokens=2048)),
    *(Gpt(depth=24, width=256, tokens=512), Gpt(depth=16, width=320, tokens=256)),
    *(Gpt(depth=6, width=384, tokens=512), Gpt(depth=3, width=384, tokens=2048)),
    *(Gpt(depth=12, width=512, tokens=512), Gpt(depth=4, width=640, tokens=1024)),
    *(Gpt(depth=2, width=768, tokens=2048), Gpt(depth=12, width=768, tokens=256)),
    *(Gpt(depth=3, width=1024, tokens=512), Gpt(depth=2, width=1024, tokens=2048)),
    Gpt(depth=24, width=1024, tokens=256),
)
"""Networks whose steps the predictions are compared with; the constants are not fitted to any of them."""
_LEAST_S, _MOST = 1.0, 60
"""Short steps are repeated for so many seconds or so often in each round."""
PEAKED = tuple(gpt for gpt in CHECKED if gpt.depth * gpt.width <= 6144 and gpt.width != 320)
"""Networks whose peak memory is measured."""
_CPU = torch.device("cpu")
_SMALL = Gpt(depth=2, width=128, tokens=256)
"""Run once before memory is measured: libraries allocate in their first calls."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of the phases of one step, the fastest of the repeats: others on a shared machine only add to it."""

    gpt: Gpt
    method: Timed
    forward_s: float
    backward_s: float
    update_s: float
    median_s: float
    """Median of the whole step."""
    spread: float
    """Standard deviation of the whole step over its median."""
    repeats: int

    @property
    def step_s(self) -> float:
        """Time of the whole step: the sum of its three phases."""
        return self.forward_s + self.backward_s + self.update_s

    def to_json(self) -> Json:
        """The timing as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Json) -> "Timing":
        """The timing that `to_json` gave these values of."""
        return cls(**{**values, "gpt": Gpt(**values["gpt"])})


def time_steps(
    jobs: Sequence[tuple[Gpt, Sequence[Timed]]],
    *,
    repeats: int,
    note: Callable[[str], None],
    device: torch.device = _CPU,
) -> list[Timing]:
    """Time networks and methods in two rounds, the second in reverse order: a minute in which the machine is slow then
    falls on one of them only."""
    steps: dict[tuple[Gpt, Timed], list[tuple[float, ...]]] = {}
    for order in (1, -1):
        for gpt, methods in jobs[::order]:
            for method in methods[::order]:
                step = _steps_of(gpt, method, device)
                for _ in range(2):  # the first steps allocate
                    step()
                steps.setdefault((gpt, method), []).extend(_several(step, -(-repeats // 2)))
                del step
            fastest = {method: min(map(sum, steps[gpt, method])) for method in methods}
            shown = ", ".join(f"{method} {seconds:.3f}" for method, seconds in fastest.items())
            note(f"{gpt.depth} blocks of {gpt.width}, {gpt.tokens} tokens: {shown} s")
    return [_timing(gpt, method, steps[gpt, method]) for gpt, methods in jobs for method in methods]


def _several(step: Callable[[], tuple[float, ...]], least: int) -> list[tuple[float, ...]]:
    """At least so many steps, and short ones for a second: other processes disturb them most."""
    done: list[tuple[float, ...]] = []
    start_s = time.perf_counter()
    while len(done) < least or (time.perf_counter() - start_s < _LEAST_S and len(done) < _MOST):
        done.append(step())
    return done


@dataclass(frozen=True, kw_only=True)
class ProjectionTiming:
    """Seconds of projecting the error rows of one step by the machine itself, the fastest of the repeats."""

    rows: int
    inputs: int
    outputs: int
    digital_s: float
    """By a stored Gaussian matrix."""
    twin_s: float
    """Through the twin opu-2021 by phase steps, with all its noise."""


PROJECTED = (
    *((256, 2048, 128), (256, 2048, 1024), (1024, 2048, 256), (2048, 2048, 512)),
    *((1024, 512, 512), (512, 512, 64), (2048, 1024, 1024)),
)
"""Rows, inputs and outputs of the projections that are timed."""


def time_projections(
    repeats: int, device: torch.device = _CPU, shapes: Sequence[tuple[int, int, int]] = PROJECTED
) -> list[ProjectionTiming]:
    """Time a digital projection and the twin on rows like those of a language model that has just begun to learn."""
    found = []
    for rows, inputs, outputs in shapes:
        generator = torch.Generator().manual_seed(0)
        e_ND = torch.randn(rows, inputs, generator=generator).mul_(0.3).softmax(1)
        e_ND[torch.arange(rows), torch.arange(rows) % inputs] -= 1.0
        e_ND = (e_ND / rows).to(device)
        twin = Optical(Twin.preset("opu-2021")).shaped(inputs, outputs)
        digital_s, twin_s = (
            _fastest(partial(projection.project, e_ND), repeats, device)
            for projection in (Gaussian(seed=0).shaped(inputs, outputs), twin)
        )
        found.append(ProjectionTiming(rows=rows, inputs=inputs, outputs=outputs, digital_s=digital_s, twin_s=twin_s))
    return found


def _fastest(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    call()  # the first call draws the matrix and compiles
    times = []
    for _ in range(repeats):
        watch = Stopwatch(device)
        call()
        watch.stop()
        times.append(watch.seconds)
    return min(times)


def fastest_of(once: Sequence[ProjectionTiming], again: Sequence[ProjectionTiming]) -> list[ProjectionTiming]:
    """The faster of two timings of the same projections."""
    return [
        replace(a, digital_s=min(a.digital_s, b.digital_s), twin_s=min(a.twin_s, b.twin_s))
        for a, b in zip(once, again, strict=True)
    ]


def _timing(gpt: Gpt, method: Timed, steps: list[tuple[float, ...]]) -> Timing:
    # The fastest of each phase by itself, for others on the machine can only add time; the median of the whole step
    # and its spread tell how much they did.
    whole = [sum(phases) for phases in steps]
    forward_s, backward_s, update_s = (min(column) for column in zip(*steps, strict=True))
    return Timing(
        gpt=gpt,
        method=method,
        forward_s=forward_s,
        backward_s=backward_s,
        update_s=update_s,
        median_s=statistics.median(whole),
        spread=statistics.pstdev(whole) / statistics.median(whole),
        repeats=len(steps),
    )


def _steps_of(gpt: Gpt, method: Timed, device: torch.device = _CPU) -> Callable[[], tuple[float, float, float]]:
    """A function that does one step on random tokens and returns the seconds of its phases, each until the device is
    done with it."""
    config = arm(gpt.run(), "bp" if method == "inputs" else method)
    with forked([device]):
        model = build_model(config, gpt.shape).to(device)
        ids_NT = torch.randint(0, gpt.vocabulary, (config.batch_size, gpt.context)).to(device)
    dfa = attach(model, config, gpt.shape)
    optimizer = fitted_optimizer(model, dfa, config)
    if method == "inputs":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("wte" in name or "wpe" in name)  # embeddings only: they begin the graph

    def step() -> tuple[float, float, float]:
        optimizer.zero_grad(set_to_none=True)  # type: ignore[union-attr]
        forward = Stopwatch(device)
        loss = _loss(model, ids_NT)
        forward.stop()
        backward = Stopwatch(device)
        dfa.backward(loss) if dfa else torch.autograd.backward(loss)
        backward.stop()
        update = Stopwatch(device)
        if method != "inputs":
            # training waits for the norm of all gradients in every step, so it is part of an update's time
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            torch.nn.utils.get_total_norm(gradients).item()
            optimizer.step()  # type: ignore[union-attr]
        update.stop()
        return forward.seconds, backward.seconds, update.seconds

    return step


def _loss(model: torch.nn.Module, ids_NT: Tensor) -> Tensor:
    logits_NTV = model(input_ids=ids_NT, use_cache=False).logits
    return cross_entropy(logits_NTV.flatten(0, 1).float(), ids_NT.flatten())


def check_peaks_told(device: torch.device) -> None:
    """Refuse to measure peak memory where nobody tells it.

    Raises:
        ConfigError: a system that is not Linux, or an accelerator of which torch does not know.
    """
    if device.type == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise ConfigError("peak memory is read from /proc, which this system lacks; leave memory out (memory=false)")
    if device.type != "cpu" and not hasattr(_module(device), "max_memory_allocated"):
        raise ConfigError(f"torch does not tell the peak memory of {device}; leave memory out (memory=false)")


def peak_bytes(gpt: Gpt, method: Timed, device: torch.device = _CPU) -> int:
    """Largest memory that two steps add to what was there after a small one.

    Of a processor it is the resident size of a process of its own, of an accelerator what torch has allocated there.

    Raises:
        ConfigError: nobody tells.
    """
    check_peaks_told(device)
    if device.type != "cpu":
        return _peak_bytes_there(gpt, method, device)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_bytes, gpt, method, torch.get_num_threads()).result()


def _peak_bytes(gpt: Gpt, method: Timed, threads: int) -> int:
    torch.set_num_threads(threads)
    # freed tensors go back to the system at once: the peak is what is alive
    give_back_freed(MemorySettings(fused=True), from_bytes=2**16)
    _steps_of(_SMALL, method)()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    step = _steps_of(gpt, method)
    for _ in range(2):
        step()
    return _resident("VmHWM") - before


def _peak_bytes_there(gpt: Gpt, method: Timed, device: torch.device) -> int:
    allocated = _module(device)
    _steps_of(_SMALL, method, device)()
    gc.collect()  # what refers to itself would be freed some time during the steps
    before = allocated.memory_allocated(device)
    allocated.reset_peak_memory_stats(device)
    step = _steps_of(gpt, method, device)
    for _ in range(2):
        step()
    return int(allocated.max_memory_allocated(device)) - int(before)


def _module(device: torch.device) -> Any:
    return torch.get_device_module(device)


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
