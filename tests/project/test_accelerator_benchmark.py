"""The benchmark of accelerators runs on a processor too, has every figure, and tells of what fails."""

import io
import json
import statistics
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WAYS = [f"{how} over {how} bp" for how in ("eager", "compiled")]
NAMES = [
    *(f"aligned, exact error: {way}" for way in WAYS),
    *(f"aligned, four draws: {way}" for way in WAYS),
    *(f"aligned, twin opu-2021: {way}" for way in WAYS),
    *(f"random feedback, a slice a block, Hadamard: {way}" for way in WAYS),
    *(f"aligned, sublayer: {way}" for way in WAYS),
    *(f"aligned, linear, bfloat16 weights: {way}" for way in WAYS),
    "peak memory, aligned, exact error: over compiled bp",
    "peak memory, aligned, exact error, stream: over compiled bp",
    *(
        f"peak memory, aligned, exact error{how}, head in rows: over compiled bp{under}"
        for how in ("", ", stream")
        for under in ("", ", head in rows")
    ),
    "2^20 -> 2^21, float32: vectors a second",
    "2^20 -> 2^21, half: vectors a second",
    "10,000 -> 10,000: over the bfloat16 product",
    "twin, full off-axis frames a second",
    "1.3 billion parameters, odfa: tokens a second over compiled bp",
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield import_module("accelerator")


@pytest.fixture(scope="module")
def run(benchmark) -> tuple[dict[str, Any], str]:
    told = io.StringIO()
    with redirect_stdout(told):
        found = benchmark.measured(CPU, small=True)
    return found, told.getvalue()


@pytest.fixture
def found_of(benchmark):
    return import_module("accelerator_parts.found").Found


def test_small_sizes_on_the_processor(run):
    found, told = run
    assert json.loads(json.dumps(found)) == found
    assert {"device_name", "triton", "commit", "packages", "projections_by"} <= set(found)
    for size in found["projections"]:
        assert size["per_s"].keys() == size["over_dense"].keys()
        assert {"Hadamard int8", "Rademacher bfloat16", "dense float32"} <= set(size["per_s"])
        ways = [f"Gaussian {kept} {rows}" for kept in ("stored", "on the fly") for rows in ("float32", "two entries")]
        assert {*ways, "draw of two entries"} <= set(size["per_s"])
        assert min(size["per_s"].values()) > 0
    assert min(found["crossover"].values()) > 0
    assert "x dense float32" in told


def test_every_figure_is_there_and_is_what_was_measured(run):
    found, told = run
    assert list(found["figures"]) == NAMES
    assert found["failed"] == {}
    assert found["compile"] is False
    for part in found["parts"].values():
        rounds = {key: len(values) for key, values in part["measured"].items()}
        assert len(set(rounds.values())) == 1, "interleaved: as many rounds of each"
        assert min(map(min, part["measured"].values())) > 0
    parts = [part["measured"] for part in found["parts"].values()]
    for name, figure in found["figures"].items():
        assert f"\n{name} " in told
        assert "met" not in figure, "small sizes are no measurement"
        (own,) = [part for part in parts if {figure["over"], figure["under"] or figure["over"]} <= set(part)]
        if figure["under"] is None:
            expected = statistics.median(own[figure["over"]])
        else:
            expected = statistics.median(a / b for a, b in zip(own[figure["over"]], own[figure["under"]], strict=True))
        assert figure["value"] == pytest.approx(expected)
    assert "nothing compiled" in told


def test_a_method_that_fails_is_named_and_the_others_go_on(benchmark, monkeypatch, tmp_path, capsys):
    gpt = import_module("accelerator_parts.gpt")
    training = import_module("accelerator_parts.training")

    def only(size):
        known = gpt.methods(size)
        broken = gpt.Method(size=size, feedback={"rule": "no rule"})
        late = gpt.Method(size=size, feedback={**known["aligned, exact error"].feedback, "error_at": "transformer.wte"})
        return {"bp": known["bp"], "aligned, exact error": broken, "aligned, four draws": late,
                "aligned, sublayer": known["aligned, sublayer"]}  # fmt: skip

    monkeypatch.setattr(training, "methods", only)
    out = tmp_path / "found.json"
    assert benchmark.main(["cpu", "--small", "--only", "steps", "--out", str(out)]) == 1
    found, told = json.loads(out.read_text(encoding="utf-8")), capsys.readouterr().out
    for name in ("aligned, exact error", "aligned, four draws"):
        for how in ("eager", "compiled"):
            why = found["failed"][f"steps: {name}, {how}"]
            assert why
            assert "\n" not in why
            assert why in found["figures"][f"{name}: {how} over {how} bp"]["failed"]
            assert why in told
        assert found["figures"]["aligned, sublayer: eager over eager bp"]["value"] > 0
    assert found["figures"]["twin, full off-axis frames a second"] == {"left_out": "--only frames"}
    assert "aligned, twin opu-2021, eager: was not measured" in told


def test_a_part_that_fails_as_a_whole_fails_its_figures(benchmark, found_of, monkeypatch, tmp_path, capsys):
    def broken(_setting):
        raise torch.OutOfMemoryError("tried to allocate\n80 GiB")

    billion = found_of(unit="tokens/s", measured={"bp": [10.0, 30.0, 20.0], "odfa": [9.0, 15.0, 20.0]})
    monkeypatch.setitem(benchmark.PARTS, "frames", broken)
    monkeypatch.setitem(benchmark.PARTS, "billion", lambda _setting: billion)
    out = tmp_path / "found.json"
    assert benchmark.main(["cpu", "--small", "--only", "billion,frames", "--out", str(out)]) == 1
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["failed"] == {"frames: all of it": "OutOfMemoryError: tried to allocate 80 GiB"}
    assert "80 GiB" in found["figures"]["twin, full off-axis frames a second"]["failed"]
    assert found["figures"]["1.3 billion parameters, odfa: tokens a second over compiled bp"]["value"] == 0.9
    assert "failed: " in capsys.readouterr().out
    monkeypatch.setitem(benchmark.PARTS, "frames", lambda _setting: found_of(unit="", measured={"capture": [7.0]}))
    assert benchmark.main(["cpu", "--small", "--only", "billion,frames", "--out", str(out)]) == 0


def test_asks_are_judged(benchmark, found_of):
    figures = import_module("accelerator_parts.figures")
    steps = {f"{name}, {how}": [2.0] for name in ("bp", "aligned, exact error") for how in ("eager", "compiled")}
    steps |= {"aligned, four draws, eager": [2.2], "aligned, four draws, compiled": [1.0]}
    parts = {"steps": found_of(unit="s", measured=steps), "frames": found_of(unit="", measured={"capture": [5e3]})}
    table = figures.evaluated(parts)
    verdicts = {name: figure.get("met") for name, figure in table.items() if "value" in figure}
    assert verdicts == {
        "aligned, exact error: eager over eager bp": False,
        "aligned, exact error: compiled over compiled bp": True,
        "aligned, four draws: eager over eager bp": False,
        "aligned, four draws: compiled over compiled bp": True,
        "twin, full off-axis frames a second": True,
    }
    assert table["aligned, four draws: eager over eager bp"]["at_most"] == 1.0, "what the exact error takes"
    lines = figures.told(table, parts)
    assert len(lines) == len(NAMES)
    assert "missed" in lines[0]
    assert "met" in lines[1]


def test_calls_are_interleaved_within_a_budget(benchmark):
    measuring, told = import_module("measuring"), []
    calls = {name: (lambda name=name: told.append(name)) for name in "abc"}
    times = measuring.interleaved(dict(calls), 2, device=CPU, warm=1)
    assert "".join(told) == "bcacababc"
    assert {name: len(each) for name, each in times.items()} == dict.fromkeys("abc", 2)
    told.clear()
    measuring.interleaved(dict(calls), 9, device=CPU, warm=9, budget_s=0)
    assert len(told) == 6, "one warm round and one that counts"


def test_what_fails_leaves_its_memory_to_the_others(benchmark):
    measuring, failed = import_module("measuring"), {}
    calls = {"good": lambda: None, "bad": lambda: 1 / 0}
    times = measuring.interleaved(calls, 3, device=CPU, failed=failed)
    assert list(times) == list(calls) == ["good"]
    assert failed == {"bad": "ZeroDivisionError: division by zero"}
    with pytest.raises(ZeroDivisionError):
        measuring.interleaved({"bad": lambda: 1 / 0}, 3, device=CPU)


def test_peak_memory_counts_what_a_step_holds_and_what_it_was_built_with(benchmark):
    measuring = import_module("measuring")

    def make():
        kept = torch.ones(1 << 18)
        return lambda: (kept * 2, kept * 3)[0].sum()

    assert measuring.peak_bytes(make, CPU) == pytest.approx(3 << 20, rel=0.01)


def test_parts_that_are_not_known_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["cpu", "--only", "step"])
    assert "got 'step'" in capsys.readouterr().err
