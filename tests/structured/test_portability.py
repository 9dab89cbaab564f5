"""Narrower registers than this machine's: the same kernels compiled for other processors."""

import os
import platform
import subprocess
import sys

import pytest

_CHECK = """
import torch
from odfa.structured import Structured
for num_inputs, num_outputs in ((1000, 3000), (9000, 20_000)):
    structured = Structured(3, num_inputs)
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(2, num_inputs, generator=generator)
    t_ND = torch.randint(-1, 2, (2, num_inputs), dtype=torch.int8, generator=generator)
    for got_NM, rows_ND, tolerance in (
        (structured.project(x_ND, num_outputs), x_ND, 3e-6),
        (structured.project_ternary(t_ND, num_outputs)[0], t_ND, 0.12),
    ):
        exact_NM = structured.portable(rows_ND.double(), num_outputs)
        assert (got_NM - exact_NM).abs().max() < tolerance * rows_ND.double().norm(dim=1).max()
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 processors")
@pytest.mark.slow
@pytest.mark.parametrize("processor", ["haswell", "nehalem"])  # AVX2; SSE 4.2
def test_older_processors(processor, tmp_path):
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", _CHECK], check=True, timeout=250, env=environment)
