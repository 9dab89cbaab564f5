"""Compiles the kernels of draws for an NVIDIA GPU that need not be there: run by `test_triton`.

A product and a sum in one instruction would round once instead of twice, and give other numbers than a processor.
`small`: the least sizes; `large`: the largest, which must not spill.
"""

import re
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from odfa.draws import accelerated
from odfa.draws.accelerated import MULTIPLIED, UNFUSED
from odfa.draws.triton_draws import fill
from odfa.draws.triton_product import gather, multiply
from odfa.encode.accelerated import OPTIONS
from odfa.encode.triton_entries import draw_entries
from tests.structured.triton_compiled import SHARED, stack_bytes

FUSED = re.compile(r"\bfma\.rn\.f32")
TYPES = {
    **dict.fromkeys(("x", "out", "gain", "e", "uniform"), "*fp32"),
    "index": "*i64",
    "key": "i64",
    "first_row": "i64",
}


def compiled(kernel, options, types=None, **constants):
    """For compute capability 9.0, with a unit stride of columns, as contiguous tensors have it."""
    names = kernel.arg_names
    constants |= {name: 1 for name in ("x_column", "out_column", "e_column") if name in names}
    types = {**TYPES, **(types or {})}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    fixed = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(kernel, signature, fixed, aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def normals(made):
    """The same, whose square roots, products and sums must be those of a processor."""
    assert "sqrt.rn.f32" in made.asm["ptx"]
    assert not FUSED.search(made.asm["ptx"])
    return made


def product(rows, kind):
    quads, inputs = accelerated._QUADS, accelerated._INPUTS
    constants = {"ROWS": rows, "QUADS": quads, "INPUTS": inputs, "PRECISION": "tf32", "WIDE": False}
    made = normals(compiled(multiply, MULTIPLIED, {"x": kind}, **constants))
    assert made.metadata.shared <= SHARED
    return made


def compile_small():
    normals(compiled(fill, UNFUSED, NORMAL=True, COUNTERS=512))
    fused = compiled(fill, {**UNFUSED, "enable_fp_fusion": True}, NORMAL=True, COUNTERS=512)
    assert FUSED.search(fused.asm["ptx"])  # so that the search finds them
    normals(compiled(gather, UNFUSED, QUADS=32))
    for kind in ("*fp32", "*i8"):
        product(accelerated._LEAST_ROWS, kind)
    compiled(draw_entries, OPTIONS, BLOCK=256)


def compile_large():
    for kind in ("*fp32", "*fp16", "*bf16", "*i8"):
        made = product(accelerated._ROWS, kind)
        assert "wgmma" in made.asm["ptx"]
        assert stack_bytes(made) == 0
    assert stack_bytes(normals(compiled(gather, UNFUSED, QUADS=accelerated._GATHERED_QUADS))) == 0
    assert stack_bytes(compiled(draw_entries, OPTIONS, BLOCK=2048)) == 0


if __name__ == "__main__":
    {"small": compile_small, "large": compile_large}[sys.argv[1]]()
    print("compiled")
