"""What benchmarks measure with: calls interleaved in changing order, waits for a device, bytes that a step holds."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch

Call = Callable[[], object]


def wait(device: torch.device) -> None:
    """Until a device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def release(device: torch.device) -> None:
    """Give back what nobody refers to any more."""
    gc.collect()
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def reason(error: Exception) -> str:
    """Kind and message of an error in one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def seconds_of(call: Call, device: torch.device) -> float:
    """Seconds of one call, with the device idle before and after it."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def interleaved(
    calls: dict[str, Call],
    rounds: int,
    *,
    device: torch.device,
    warm: int = 3,
    budget_s: float = math.inf,
    failed: dict[str, str] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every call, one list entry a round; the order changes from round to round.

    Args:
        calls: by name; what fails is taken out, so that its memory is free for the others.
        warm: rounds before those that count.
        budget_s: no round begins so many seconds after the first one, which may compile, but for one that counts.
        failed: takes the reasons of those that failed; None: an error ends the measurement.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, start, warmed, counted = list(calls), math.inf, 0, 0
    while order and counted < rounds:
        late = time.perf_counter() - start > budget_s
        if late and counted:
            break
        warms = warmed < warm and not (late and warmed)
        order.append(order.pop(0))
        for name in tuple(order):
            taken = _attempt(name, calls, device, failed)
            if taken is None:
                order.remove(name)
                del times[name]
                release(device)
            elif not warms:
                times[name].append(taken)
        warmed, counted, start = warmed + warms, counted + (not warms), min(start, time.perf_counter())
    return times


def _attempt(name: str, calls: dict[str, Call], device: torch.device, failed: dict[str, str] | None) -> float | None:
    """Seconds of a call; None: it failed, which `failed` now says, and is gone."""
    try:
        return seconds_of(calls[name], device)
    except Exception as error:
        if failed is None:
            raise
        failed[name] = reason(error)
    del calls[name]
    return None


def typical(values: Sequence[float], period: int = 1) -> float:
    """The mean over a period of the medians of its places: steps of one method that hops seldom are not alike."""
    return statistics.mean(statistics.median(values[place::period]) for place in range(period))


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def peak_bytes(make: Callable[[], Call], device: torch.device) -> int:
    """The most bytes of tensors that a third call of what `make` builds holds, with all that it was built with.

    On the processor from the events of torch's profiler, elsewhere from the allocator of the device.
    """
    if device.type == "cpu":
        return _peak_on_processor(make)
    memory = torch.get_device_module(device)
    release(device)
    before = memory.memory_allocated(device)
    call = make()
    for _ in range(2):
        call()
    wait(device)
    memory.reset_peak_memory_stats(device)
    call()
    wait(device)
    return int(memory.max_memory_allocated(device) - before)


def _peak_on_processor(make: Callable[[], Call]) -> int:
    made: list[Call] = []

    def start() -> None:
        made.append(make())
        for _ in range(2):
            made[0]()

    held, _ = _allocated(start)
    _, most = _allocated(lambda: made[0]())
    return held + most


def _allocated(call: Call) -> tuple[int, int]:
    """Bytes that a call leaves allocated, and the most that it has allocated at a time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    held = most = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return held, most
