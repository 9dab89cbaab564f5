"""The accelerators' draws of entries on a machine without one; `tests/draws` compiles their kernel for a GPU."""

from pathlib import Path

import pytest
from tests.structured.test_triton import needs_triton, run

HERE = Path(__file__).parent


@needs_triton
@pytest.mark.timeout(300)
def test_elements():
    laws = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", HERE / "triton_elements.py")
    assert "passed" in run(laws, TRITON_INTERPRET="1")


def test_encoding_on_the_processor_does_not_load_triton():
    steps = (
        "import sys, torch, odfa",
        "odfa.DFA; odfa.Ternary('sampled').encode(torch.ones(2, 300))",
        "print([name for name in sys.modules if name.startswith('odfa.') and '.triton_' in name])",
    )
    assert run(["-c", "; ".join(steps)]).strip() == "[]"
