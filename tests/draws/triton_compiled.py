"""Compiles the kernel of draws for an NVIDIA GPU that need not be there: run by `test_triton`.

A product and a sum in one instruction would round once instead of twice, and give other numbers than a processor.
"""

import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from odfa.draws.accelerated import UNFUSED
from odfa.draws.triton_draws import fill

FUSED = re.compile(r"\bfma\.rn\.f32")
SIGNATURE = {"out": "*fp32", "key": "i64", "first_row": "i64", "num_rows": "i32", "num_columns": "i32", "quads": "i32"}


def compiled(options):
    """PTX for compute capability 9.0."""
    constants = {"NORMAL": True, "COUNTERS": 512}
    signature = SIGNATURE | dict.fromkeys(constants, "constexpr")
    fixed = {(fill.arg_names.index(name),): value for name, value in constants.items()}
    made = triton.compile(ASTSource(fill, signature, fixed), target=GPUTarget("cuda", 90, 32), options=options)
    return made.asm["ptx"]


if __name__ == "__main__":
    found = compiled(UNFUSED)
    assert "sqrt.rn.f32" in found
    assert not FUSED.search(found)
    assert FUSED.search(compiled({**UNFUSED, "enable_fp_fusion": True}))  # so that the search finds them
    print("compiled")
