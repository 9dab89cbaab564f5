"""Vectors a second of projections on an accelerator: `python benchmarks/accelerator.py [DEVICE]`.

Without a device the first accelerator is taken. `--small` takes sizes that a processor can do too. Writes JSON with the
machine, versions and commit, to `--out`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import odfa
from odfa.project import hadamard
from odfa.session.device import device_named
from odfa.store import environment
from odfa.store.provenance import device_name
from odfa.structured import compiler_on

SIZES = [(1000, 1000, 512), (10_000, 10_000, 512), (50_304, 9216, 8192), (2**20, 2**21, 16)]
SMALL = [(10, 100, 4), (1000, 1000, 8)]
"""Inputs, outputs, rows."""
CROSSOVER = [16, 32, 64, 128, 256, 512]
"""Inputs at which `Hadamard` is timed beside its stored matrix, 2,048 outputs, 8,192 rows."""
_SLOW_ENTRIES = 2**42
"""Rows x inputs x outputs above which `Rademacher` takes too long."""
_STORED_BYTES = 2**33
"""Matrices above this are not stored."""


def vectors_a_second(call: Callable[[], object], num_rows: int, device: torch.device, repeats: int) -> float:
    """Rows over the median time of so many calls."""
    wait = (lambda: None) if device.type == "cpu" else torch.get_device_module(device).synchronize
    call()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return num_rows / statistics.median(times)


def projections(size: tuple[int, int, int], device: torch.device, repeats: int) -> dict[str, object]:
    """Vectors a second of each way of projecting; those that do not fit are left out."""
    num_inputs, num_outputs, num_rows = size
    x_ND = torch.randn(num_rows, num_inputs, device=device)
    rows = {"float32": x_ND, "bfloat16": x_ND.bfloat16(), "int8": x_ND.clamp(-1, 1).round().to(torch.int8)}
    found: dict[str, float] = {}
    for make in (odfa.Hadamard, odfa.Rademacher):
        if make is odfa.Rademacher and num_inputs * num_outputs * num_rows > _SLOW_ENTRIES:
            continue
        projection = make(0).shaped(num_inputs, num_outputs)
        for dtype, e_ND in rows.items():
            call = partial(projection.project, e_ND)
            found[f"{make.__name__} {dtype}"] = vectors_a_second(call, num_rows, device, repeats)
    if 4 * num_inputs * num_outputs <= _STORED_BYTES:
        matrix_DM = torch.randn(num_inputs, num_outputs, device=device)
        for dtype in (torch.float32, torch.bfloat16):
            name, call = (
                f"dense {str(dtype).removeprefix('torch.')}",
                partial(torch.mm, x_ND.to(dtype), matrix_DM.to(dtype)),
            )
            found[name] = vectors_a_second(call, num_rows, device, repeats)
    dense = found.get("dense float32")
    ratios = {name: rate / dense for name, rate in found.items()} if dense else {}
    return {"inputs": num_inputs, "outputs": num_outputs, "rows": num_rows, "per_s": found, "over_dense": ratios}


def crossover(num_inputs: int, num_rows: int, device: torch.device, repeats: int) -> float:
    """How many times faster `Hadamard` is by its transforms than by its stored matrix."""
    e_ND, rates = torch.randn(num_rows, num_inputs, device=device), []
    before = hadamard._DENSE_INPUTS, hadamard._DENSE_INPUTS_BY_TRITON
    try:
        for most in (0, num_inputs):
            hadamard._DENSE_INPUTS = hadamard._DENSE_INPUTS_BY_TRITON = most
            call = partial(odfa.Hadamard(0).shaped(num_inputs, 2048).project, e_ND)
            rates.append(vectors_a_second(call, num_rows, device, repeats))
    finally:
        hadamard._DENSE_INPUTS, hadamard._DENSE_INPUTS_BY_TRITON = before
    return rates[0] / rates[1]


def measured(device: torch.device, *, small: bool) -> dict[str, object]:
    """Everything, and where it was measured."""
    sizes, repeats, num_rows = (SMALL, 1, 8) if small else (SIZES, 9, 8192)
    found = []
    for size in sizes:
        found.append(projections(size, device, repeats))
        show(found[-1])
    ratios = {str(inputs): crossover(inputs, num_rows, device, repeats) for inputs in CROSSOVER[: 2 if small else None]}
    told = "   ".join(f"{inputs}: {ratio:.2f}" for inputs, ratio in ratios.items())
    print(f"Hadamard's transforms over its stored matrix, by inputs   {told}")
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = None
    where = {"device": str(device), "device_name": device_name(device), "projections_by": compiler_on(device)}
    return {**environment(), **where, "triton": triton, "projections": found, "crossover": ratios}


def show(found: dict[str, object]) -> None:
    """One size, a line for each way."""
    print(f"{found['inputs']:,} -> {found['outputs']:,}, {found['rows']:,} rows")
    for name, rate in found["per_s"].items():  # type: ignore[attr-defined]
        ratio = found["over_dense"].get(name)  # type: ignore[attr-defined]
        print(f"    {name:22}{rate:16,.0f} vectors/s" + (f"{ratio:10.3g} x dense float32" if ratio else ""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", nargs="?", default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", default="accelerator.json")
    words = parser.parse_args()
    result = measured(device_named(words.device), small=words.small)
    Path(words.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {words.out}")
