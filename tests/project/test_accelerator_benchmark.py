"""The benchmark of accelerators runs on a processor too."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "accelerator.py"


def test_small_sizes_on_the_processor(tmp_path):
    words = [sys.executable, str(BENCHMARK), "cpu", "--small", "--out", str(tmp_path / "found.json")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert {"device_name", "triton", "commit", "packages", "projections_by"} <= set(found)
    for size in found["projections"]:
        assert size["per_s"].keys() == size["over_dense"].keys()
        assert {"Hadamard int8", "Rademacher bfloat16", "dense float32"} <= set(size["per_s"])
        assert min(size["per_s"].values()) > 0
    assert min(found["crossover"].values()) > 0
