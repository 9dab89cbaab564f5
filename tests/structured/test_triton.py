"""The accelerators' kernels on a machine without one: interpreted element by element, and compiled for GPUs."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from odfa.errors import ConfigError
from odfa.structured import Structured, accelerated, compiler_on, kernels_available, triton_runs_on
from odfa.structured.accelerated import Tables, precision_on, transform_rows

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: Linux only")


def run(words, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=880,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_triton
@pytest.mark.timeout(900)  # a quarter of a minute on an idle core
def test_elements():
    laws = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", HERE / "triton_elements.py")
    assert "passed" in run(laws, TRITON_INTERPRET="1")


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path):
    run((HERE / "triton_compiled.py", "small"), TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


@needs_triton
@pytest.mark.slow
def test_kernels_stay_in_registers_and_in_shared_memory(tmp_path):
    run((HERE / "triton_compiled.py", "large"), TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


def test_the_processor_does_not_run_them():
    assert not triton_runs_on(torch.device("cpu"))
    assert not triton_runs_on(torch.device("meta"))
    assert not triton_runs_on(torch.device("mps"))
    assert compiler_on(torch.device("cpu")) == ("numba" if kernels_available() else "torch")
    assert compiler_on(torch.device("mps")) == "torch"


@pytest.mark.parametrize(
    ("found", "capability", "hip", "runs"),
    [
        (True, (9, 0), None, True),
        (True, (8, 0), None, True),
        (True, (7, 5), None, False),
        (True, (7, 5), "6.4", True),
        (False, (9, 0), None, False),
    ],
)
def test_which_gpus_run_them(found, capability, hip, runs, monkeypatch):
    monkeypatch.setattr(accelerated, "find_spec", lambda name: object() if found else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert triton_runs_on.__wrapped__(torch.device("cuda:0")) is runs
    assert triton_runs_on.__wrapped__(torch.device("xpu:0")) is found
    assert precision_on(torch.device("cuda:0")) == ("tf32" if hip is None else "ieee")
    assert precision_on(torch.device("xpu:0")) == "ieee"


def test_columns_too_far_apart_are_refused():
    structured = Structured(0, 100)
    far_NM = torch.empty(1, device="meta").as_strided((1, 2), (1, 2**30))  # no memory is touched
    with pytest.raises(ConfigError, match="contiguous"):
        transform_rows(torch.ones(1, 100), far_NM, Tables.of(structured.keyed, 1, torch.device("cpu")))


def test_projecting_on_the_processor_does_not_load_them():
    steps = (
        "import sys, torch, odfa",
        "[make(0).shaped(100, 50).project(torch.ones(2, 100)) for make in (odfa.Hadamard, odfa.Rademacher)]",
        "print([name for name in sys.modules if name.startswith('odfa.structured.triton_')])",
    )
    assert run(["-c", "; ".join(steps)]).strip() == "[]"
