"""The accelerators' draws on a machine without one: interpreted number by number, and compiled for a GPU."""

from pathlib import Path

import pytest

from tests.structured.test_triton import needs_triton, run

HERE = Path(__file__).parent


@needs_triton
@pytest.mark.timeout(300)
def test_elements():
    laws = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", HERE / "triton_elements.py")
    assert "passed" in run(laws, TRITON_INTERPRET="1")


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path):
    words = (HERE / "triton_compiled.py", "small")
    assert "compiled" in run(words, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


@needs_triton
@pytest.mark.slow
def test_kernels_stay_in_registers_and_in_shared_memory(tmp_path):
    words = (HERE / "triton_compiled.py", "large")
    assert "compiled" in run(words, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


def test_drawing_on_the_processor_does_not_load_triton():
    steps = (
        "import sys, odfa.draws",
        "odfa.draws.Draws(0).normal(2, 3)",
        "print([name for name in sys.modules if name in ('odfa.draws.triton_draws', 'odfa.draws.accelerated')])",
    )
    assert run(["-c", "; ".join(steps)]).strip() == "[]"
