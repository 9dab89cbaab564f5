"""The benchmark of accelerators runs on a processor too."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "accelerator.py"


def test_small_sizes_on_the_processor(capsys):
    spec = spec_from_file_location("accelerator", BENCHMARK)
    benchmark = module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.measured(torch.device("cpu"), small=True)
    assert json.loads(json.dumps(found)) == found
    assert {"device_name", "triton", "commit", "packages", "projections_by"} <= set(found)
    for size in found["projections"]:
        assert size["per_s"].keys() == size["over_dense"].keys()
        assert {"Hadamard int8", "Rademacher bfloat16", "dense float32"} <= set(size["per_s"])
        assert min(size["per_s"].values()) > 0
    assert min(found["crossover"].values()) > 0
    assert "x dense float32" in capsys.readouterr().out
