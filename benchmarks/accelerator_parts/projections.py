"""Vectors a second of projections beside dense products, and where `Hadamard`'s stored matrix is as fast."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import interleaved, release, typical

import odfa
from accelerator_parts.found import Found, Setting
from odfa.encode import Ternary
from odfa.project import AbstractProjection, hadamard
from odfa.structured import compiler_on

Shape = tuple[int, int, int]
"""Inputs, outputs, rows."""
SIZES = {
    "thousand": (1000, 1000, 512),
    "square": (10_000, 10_000, 512),
    "vocabulary": (50_304, 9216, 8192),
    "widest": (2**20, 2**21, 16),
}
SMALL = {"narrow": (10, 100, 4), "square": (1000, 1000, 8), "widest": (1024, 2048, 4)}
CROSSOVER = [16, 32, 64, 128, 256, 512]
"""Inputs at which `Hadamard` is timed beside its stored matrix, 2,048 outputs, 8,192 rows."""
_SLOW_ENTRIES = 2**42
"""Rows x inputs x outputs above which products with a matrix made on the fly take too long."""
_STORED_BYTES = 2**33
"""Matrices above this are not stored."""
_BUDGET_S = 8.0


def projections(setting: Setting) -> Found:
    """Every size, then the crossover; `more` holds both as they are printed."""
    sizes, rounds, num_rows = (SMALL, 1, 8) if setting.small else (SIZES, 9, 8192)
    found = Found(unit="vectors/s", more={"projections_by": compiler_on(setting.device), "projections": []})
    for name, shape in sizes.items():
        found.more["projections"].append(_one_size(name, shape, setting.device, rounds, found))
        release(setting.device)
    inputs = CROSSOVER[: 2 if setting.small else None]
    found.more["crossover"] = {str(one): crossover(one, num_rows, setting.device, rounds) for one in inputs}
    return found


def _one_size(name: str, shape: Shape, device: torch.device, rounds: int, found: Found) -> dict[str, Any]:
    num_inputs, num_outputs, num_rows = shape
    failed: dict[str, str] = {}
    calls = _calls(shape, device)
    seconds = interleaved(calls, rounds, device=device, warm=1, budget_s=_BUDGET_S, failed=failed)
    rates = {way: [num_rows / taken for taken in each] for way, each in seconds.items()}
    found.measured |= {f"{name}: {way}": each for way, each in rates.items()}
    found.failed |= {f"{name}: {way}": why for way, why in failed.items()}
    per_s = {way: typical(each) for way, each in rates.items()}
    dense = per_s.get("dense float32")
    ratios = {way: rate / dense for way, rate in per_s.items()} if dense else {}
    return {"inputs": num_inputs, "outputs": num_outputs, "rows": num_rows, "per_s": per_s, "over_dense": ratios}


def _calls(shape: Shape, device: torch.device) -> dict[str, Callable[[], object]]:
    """Each way of projecting; those that do not fit are left out."""
    num_inputs, num_outputs, num_rows = shape
    x_ND = torch.randn(num_rows, num_inputs, device=device)
    rows = {"float32": x_ND, "bfloat16": x_ND.bfloat16(), "int8": x_ND.clamp(-1, 1).round().to(torch.int8)}
    calls: dict[str, Callable[[], object]] = {}
    code = Ternary("sampled").entries(x_ND)
    is_slow = num_inputs * num_outputs * num_rows > _SLOW_ENTRIES
    for name, bare in _projections(shape).items():
        projection = bare.shaped(num_inputs, num_outputs)
        for dtype, e_ND in rows.items() if name == "Hadamard" or not is_slow else ():
            calls[f"{name} {dtype}"] = partial(projection.project, e_ND)
        if name != "Hadamard":
            calls[f"{name} two entries"] = partial(projection.project_entries, code)
    calls["draw of two entries"] = partial(Ternary("sampled").entries, x_ND)
    if 4 * num_inputs * num_outputs <= _STORED_BYTES:
        matrix_DM = torch.randn(num_inputs, num_outputs, device=device)
        for dtype in ("float32", "bfloat16"):
            calls[f"dense {dtype}"] = partial(torch.mm, rows[dtype], matrix_DM.to(rows[dtype].dtype))
    return calls


def _projections(shape: Shape) -> dict[str, AbstractProjection]:
    bare: dict[str, AbstractProjection] = {
        "Hadamard": odfa.Hadamard(0),
        "Rademacher": odfa.Rademacher(0),
        "Gaussian on the fly": odfa.Gaussian(0, stored=False),
    }
    if 4 * shape[0] * shape[1] <= _STORED_BYTES:
        bare["Gaussian stored"] = odfa.Gaussian(0)
    return bare


def crossover(num_inputs: int, num_rows: int, device: torch.device, rounds: int) -> float:
    """How many times faster `Hadamard` is by its transforms than by its stored matrix."""
    e_ND, seconds = torch.randn(num_rows, num_inputs, device=device), []
    before = hadamard._DENSE_INPUTS, hadamard._DENSE_INPUTS_BY_TRITON
    try:
        for most in (0, num_inputs):
            hadamard._DENSE_INPUTS = hadamard._DENSE_INPUTS_BY_TRITON = most
            call = partial(odfa.Hadamard(0).shaped(num_inputs, 2048).project, e_ND)
            seconds.append(typical(interleaved({"one": call}, rounds, device=device, warm=1)["one"]))
    finally:
        hadamard._DENSE_INPUTS, hadamard._DENSE_INPUTS_BY_TRITON = before
    return seconds[1] / seconds[0]


def told(found: Found) -> list[str]:
    """Every size, a line for each way, and the crossover."""
    lines = []
    for size in found.more["projections"]:
        lines.append(f"{size['inputs']:,} -> {size['outputs']:,}, {size['rows']:,} rows")
        for name, rate in size["per_s"].items():
            ratio = size["over_dense"].get(name)
            lines.append(f"    {name:31}{rate:16,.0f} vectors/s" + (f"{ratio:10.3g} x dense float32" if ratio else ""))
    crossed = "   ".join(f"{inputs}: {ratio:.2f}" for inputs, ratio in found.more["crossover"].items())
    return [*lines, f"Hadamard's transforms over its stored matrix, by inputs   {crossed}"]
