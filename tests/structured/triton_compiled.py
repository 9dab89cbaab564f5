"""Compiles the accelerators' kernels for an NVIDIA GPU that need not be there: run by `test_triton`.

The interpreter takes what the compiler refuses. `small`: the least sizes; `large`: the largest, which must not spill.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from odfa.structured import accelerated
from odfa.structured.triton_signs import gather, multiply
from odfa.structured.triton_transform import cross, enter, leave, middle, whole

TOOL = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
POINTERS = {
    **dict.fromkeys(("x", "z", "y", "out", "table"), "*fp32"),
    **dict.fromkeys(("signs1", "signs2", "signs3", "signs4", "order", "rows"), "*i32"),
    "index": "*i64",
    "gain": "*fp32",
    "key": "i64",
}
SHARED = 227 * 1024
ONE_STAGE = accelerated._ONE_STAGE


def compiled(kernel, log_entries, types=None, *, options=None, **constants):
    """Compile for compute capability 9.0 with a unit stride of columns, as contiguous tensors have it."""
    names = kernel.arg_names
    constants |= {name: 1 for name in ("x_column", "out_column") if name in names}
    types = {**POINTERS, **(types or {})}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    fixed = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if str(signature[name]).startswith("*")}
    source = ASTSource(kernel, signature, fixed, aligned)
    options = options or accelerated._options(log_entries) | ({} if kernel in (multiply, gather) else ONE_STAGE)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert made.metadata.shared <= SHARED
    return made


def compiled_whole(log, x="*fp32"):
    """`whole` as it is launched."""
    options = accelerated._options(log, most_warps=16) | ONE_STAGE
    log_warps = options["num_warps"].bit_length() - 1
    return compiled(whole, log, {"x": x}, options=options, LOG=log, LOG_WARPS=log_warps, PRECISION="tf32")


def stack_bytes(made):
    """Bytes of registers that are kept in memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as code:
        code.write(made.asm["cubin"])
        code.flush()
        words = [str(TOOL), "--dump-resource-usage", code.name]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"STACK:(\d+)", told)[-1])


def compile_small():
    assert stack_bytes(compiled_whole(11)) == 0
    compiled(enter, 9, LOG_ROWS=4, STEP=512, W=32, PRECISION="tf32")
    compiled(cross, 9, J=1 << 13, LOG_COLUMNS=9, PRECISION="tf32")
    compiled(middle, 9, LOG_ROWS=5, STEP=512, W=16, PRECISION="tf32")
    compiled(leave, 9, J=1 << 13, LOG_COLUMNS=9, PRECISION="tf32")
    compiled(multiply, 13, ROWS=16, COLUMNS=128, PRECISION="tf32", WIDE=False)
    compiled(multiply, 13, {"x": "*i8"}, ROWS=16, COLUMNS=128, PRECISION="tf32", WIDE=False)
    assert stack_bytes(compiled(gather, 12, COLUMNS=accelerated._GATHERED_COLUMNS)) == 0


def compile_large():
    for log, most_stack in ((12, 0), (13, 0), (accelerated._ONE_PROGRAM_LOG, 200)):
        made = compiled_whole(log)
        assert made.metadata.shared <= accelerated._ONE_PROGRAM_BYTES * (1 << log)
        assert stack_bytes(made) <= most_stack  # the first transform of 2^14 points waits there for the next block
        # two matrices of signs; two parts of numbers as they are read, and once in each of three transforms
        assert made.asm["ttgir"].count("ttg.local_alloc ") <= 10
    for log_points in (15, 16, 19, 20, 22):
        log_rows, log_columns = accelerated.split(log_points)
        width = accelerated.tile_columns(log_rows, SHARED)
        log_tile = log_rows + width.bit_length() - 1
        made = compiled(middle, log_tile, LOG_ROWS=log_rows, STEP=1 << log_columns, W=width, PRECISION="tf32")
        assert made.metadata.shared <= accelerated._TILE_BYTES * (1 << log_tile)
        assert stack_bytes(made) == 0
    for kernel in (cross, leave):
        assert stack_bytes(compiled(kernel, 12, J=1 << 20, LOG_COLUMNS=12, PRECISION="tf32")) == 0
    for kind in ("*fp32", "*bf16", "*i8"):
        made = compiled(multiply, 13, {"x": kind}, ROWS=128, COLUMNS=128, PRECISION="tf32", WIDE=False)
        assert stack_bytes(made) == 0


if __name__ == "__main__":
    {"small": compile_small, "large": compile_large}[sys.argv[1]]()
