"""The recipe of a billion parameters on a GPU: what it is, what refuses it, and its benchmark in small."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.talk import write_corpus

from odfa import recipes
from odfa.cli import main
from odfa.data import DataShape
from odfa.errors import ConfigError
from odfa.scaling.model import walks_of_run
from odfa.session import dry_run
from odfa.tasks.language import text
from odfa.tasks.language.kernel_docs import KernelDocsData

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAME = "manuals_gpt_1b"


@pytest.fixture(scope="module")
def billion() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield import_module("billion")


@pytest.fixture
def corpus(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    text._corpus.cache_clear()
    yield write_corpus(tmp_path_factory.mktemp("manuals"))
    text._corpus.cache_clear()


def test_it_has_a_billion_parameters_and_more_than_five_million_tokens() -> None:
    run = recipes.get(NAME)
    data = run.data
    assert isinstance(data, KernelDocsData)
    width, layers = run.network.width, run.network.layers  # type: ignore[attr-defined]
    block = 12 * width**2 + 13 * width
    assert layers * block + (2 * data.vocabulary + data.context + 2) * width == 1_344_970_752
    assert run.steps is not None
    assert run.steps * run.batch_size * data.context >= 5_000_000
    assert (run.device, run.compile, run.memory.precision) == ("cuda", True, "bfloat16")


@pytest.mark.parametrize("arm", ["odfa", "bp"])
def test_arms_differ_in_rule_and_projection_alone(arm: str) -> None:
    run, whole = recipes.get(NAME, arm), recipes.whole(NAME)
    assert replace(run, rule=whole.rule, projection=whole.projection, feedback=whole.feedback) == whole


@pytest.mark.parametrize("arm", ["odfa", "bp"])
def test_a_machine_without_a_gpu_says_so_in_one_line(capsys: pytest.CaptureFixture[str], arm: str) -> None:
    assert main(["train", NAME, f"arm={arm}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("odfa: device: expected one of cpu, auto on this machine, got cuda; torch")
    assert told.count("\n") == 1


def test_memory_is_planned_below_eighty_gigabytes_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = DataShape(num_train=5120, num_validation=64, num_test=128, num_features=1024, num_classes=8192)
    walks = walks_of_run(recipes.whole(NAME), shape, "bfloat16")
    assert {key for key in walks if key[1] == "keep"} >= {("bp", "keep"), ("feedback", "keep")}
    for learning in ("bp", "feedback"):
        walk = walks[learning, "keep"]
        held = 2 * walk.parameters + 4 * walk.updated  # weights and moments
        assert held + max(walk.peak_forward, walk.peak_backward) + 2 * walk.updated < 40e9
    assert walks["feedback", "keep"].parameters == 1_344_970_752


@pytest.mark.parametrize("arm", ["odfa", "bp"])
def test_a_dry_run_on_the_processor_counts_less(monkeypatch: pytest.MonkeyPatch, arm: str) -> None:
    shape = DataShape(num_train=5120, num_validation=64, num_test=128, num_features=1024, num_classes=8192)
    monkeypatch.setattr(KernelDocsData, "peek", lambda _data: shape)
    counted = dry_run(replace(recipes.get(NAME, arm), device="cpu", compile=False))
    assert counted["parameters"] == 1_344_970_752
    assert counted["memory_bytes"]["total"] < 40e9


def test_the_benchmark_trains_both_arms_and_writes_their_curves(
    tmp_path: Path, corpus: str, billion: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    words = [f"data.path={corpus}", "vocabulary=270", "steps=12", "data.validation=8", "tensorboard=false"]
    assert billion.main(["--small", "--out", str(out), *words]) == 0, capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["failed"] == {}
    assert list(found["arms"]) == ["odfa", "bp"]
    assert {"device_name", "commit", "packages", "cpu"} <= set(found)
    for each in found["arms"].values():
        assert [step for step, _ in each["loss"]] == list(range(1, 13))
        assert each["tokens"] == 12 * 8 * 64
        assert each["tokens_per_s"] > 0
        assert [row["step"] for row in each["validation"]] == [10]
        assert each["result"]["metric"]["value"] == each["test"][0]["test_perplexity"]
        assert each["config"]["recipe"] == "manuals_tiny"
    assert "tokens a second would end in 9 minutes" in capsys.readouterr().out


def test_an_arm_that_takes_too_long_or_fails_is_told_and_the_other_goes_on(
    tmp_path: Path, corpus: str, billion: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    words = [
        f"data.path={corpus}",
        "vocabulary=270",
        "steps=100000",
        "evaluate_every=none",
        "data.validation=8",
        "tensorboard=false",
    ]
    assert billion.main(["--small", "--arms", "odfa,strange", "--minutes", "0.05", "--out", str(out), *words]) == 1
    found = json.loads(out.read_text())
    assert list(found["failed"]) == ["strange"]
    assert found["arms"]["odfa"]["stopped"].startswith("stopped after 0.05 minutes at step ")
    assert found["arms"]["odfa"]["result"] is None
    assert "failed" in capsys.readouterr().out


def test_without_a_gpu_the_benchmark_says_why(tmp_path: Path, billion: Any) -> None:
    out = tmp_path / "found.json"
    assert billion.main(["--arms", "bp", "--out", str(out)]) == 1
    assert json.loads(out.read_text())["failed"]["bp"].startswith("ConfigError: device: expected one of cpu, auto")


def test_a_gpu_is_not_taken_for_one_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="sees no such device"):
        dry_run(recipes.get(NAME))
