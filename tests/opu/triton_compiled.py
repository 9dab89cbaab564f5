"""Compiles the kernel of electrons for an NVIDIA GPU that need not be there: run by `test_electrons`."""

import re

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from odfa.draws import Draws
from odfa.draws.accelerated import UNFUSED
from odfa.opu.twin.electrons import Reading
from odfa.opu.twin.electrons.accelerated import COUNTERS, constants
from odfa.opu.twin.electrons.triton_electrons import count

FUSED = re.compile(r"\bfma\.rn\.f(32|64)")
SIGNATURE = {
    "bright_key": "i64", "faint_key": "i64", "first_row": "i32",
    "num_rows": "i32", "num_columns": "i32", "quads": "i32",
}  # fmt: skip
KINDS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.uint8: "*u8", torch.int16: "*i16", torch.int32: "*i32"}


def compiled(mean: torch.dtype, counts: torch.dtype, full_scale: int, *, shot: bool = True, **changed: bool) -> str:
    """PTX for compute capability 9.0."""
    reading = Reading(
        bright=Draws(0), faint=Draws(1), shot=shot, read_e=13.0, counts_per_e=0.1, full_scale=full_scale, dtype=counts
    )
    fixed = {**constants(reading, mean), "COUNTERS": COUNTERS}
    signature = SIGNATURE | dict.fromkeys(fixed, "constexpr") | {"mean": KINDS[mean], "counts": KINDS[counts]}
    ordered = {name: signature[name] for name in count.arg_names}
    places = {(count.arg_names.index(name),): value for name, value in fixed.items()}
    source = ASTSource(count, ordered, places)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={**UNFUSED, **changed})
    return made.asm["ptx"]


if __name__ == "__main__":
    for kinds in (
        (torch.float32, torch.uint8, 255),
        (torch.float32, torch.int16, 4095),
        (torch.float32, torch.int32, 65_535),
        (torch.float64, torch.int32, 2**30 - 1),
    ):
        found = compiled(*kinds)
        assert "sqrt.rn.f32" in found
        assert "div.rn.f32" in found
        assert not FUSED.search(found)
        assert not FUSED.search(compiled(*kinds, shot=False))
    assert FUSED.search(
        compiled(torch.float32, torch.uint8, 255, enable_fp_fusion=True)
    )  # so that the search finds them
    print("compiled")
