"""Nanoseconds that a pixel's counts take on one core: by numba, by torch's operations; and a normal number of torch's.

python benchmarks/camera.py
"""

from collections.abc import Callable
from functools import partial
from statistics import median
from unittest.mock import patch

import torch
from benchmarks.measuring import interleaved
from torch import Tensor

from odfa.draws import draws
from odfa.opu import Sensor
from odfa.opu.twin.electrons import counting
from odfa.opu.twin.sensor import detect
from odfa.store import environment

SHAPES = ((1, 2**16), (32, 1000), (650, 50))
CPU, SENSOR, REPEATS = torch.device("cpu"), Sensor(), 10
"""Calls in a row, as blocks of frames are."""


def operations(mean_RC: Tensor) -> Tensor:
    """Counts as they are made where no kernel runs."""
    with (
        patch.object(draws, "compiler_on", lambda _: "torch"),
        patch.object(counting, "compiler_on", lambda _: "torch"),
    ):
        return detect(mean_RC, SENSOR, (1,))


def repeated(call: Callable[[], Tensor]) -> None:
    """Call it `REPEATS` times."""
    for _ in range(REPEATS):
        call()


def main() -> None:
    """Print a row for each shape and light."""
    torch.set_num_threads(1)
    print(environment())
    generator = torch.Generator().manual_seed(0)
    print(f"{'frames x pixels':>16} {'light':>8} {'numba':>8} {'operations':>11} {'generator':>10}   ns a pixel")
    for shape in SHAPES:
        speckle_RC = torch.empty(shape).exponential_(generator=generator)
        for light, mean_RC in (
            ("even", torch.full(shape, 4000.0)),
            ("speckle", 2934.0 * speckle_RC),
            ("faint", torch.full(shape, 50.0)),
            ("dark", torch.full(shape, 3.0)),
        ):
            calls = {
                "numba": lambda mean_RC=mean_RC: detect(mean_RC, SENSOR, (1,)),
                "operations": lambda mean_RC=mean_RC: operations(mean_RC),
                "generator": lambda mean_RC=mean_RC: torch.empty_like(mean_RC).normal_(generator=generator),
            }
            took = interleaved({name: partial(repeated, call) for name, call in calls.items()}, 9, device=CPU)
            pixels = REPEATS * mean_RC.numel()
            numba, by_torch, generated = (median(took[name]) * 1e9 / pixels for name in calls)
            print(f"{shape[0]:>6} x {shape[1]:>7} {light:>8} {numba:8.2f} {by_torch:11.2f} {generated:10.2f}")


if __name__ == "__main__":
    main()
