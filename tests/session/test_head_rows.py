"""`memory.head_rows`: the same training with the head some rows at a time, and refused where it makes no sense."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.talk import small_run, write_corpus

from odfa import recipes, train
from odfa.arms import arm
from odfa.engine import LinearCrossEntropy
from odfa.errors import ConfigError
from odfa.session import MemorySettings, RunConfig, build, dry_run
from odfa.settings import apply
from odfa.store import load_run
from odfa.tasks.language import text
from odfa.train.alignment import measure_alignment

ROWS = MemorySettings(head_rows=7)
"""Of 48 tokens in a step."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("text"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    text._corpus.cache_clear()


def run_of(corpus: str, word: str, rule: str, memory: MemorySettings) -> RunConfig:
    """Plain gradient descent, in which a difference in the last bit stays one."""
    run = small_run(corpus, word, rule, memory=memory)
    return apply(run, ["optimizer=sgd", "optimizer.learning_rate=0.1", "optimizer.average=0.9"])


@pytest.mark.parametrize(
    ("word", "rule", "memory"),
    [
        ("bp", "random", MemorySettings()),
        ("bp", "random", MemorySettings(activations="recompute", fused=True)),
        ("shallow", "random", MemorySettings()),
        ("dfa", "random", MemorySettings(activations="stream", fused=True)),
        ("dfa", "aligned", MemorySettings()),
        ("dfa", "exact", MemorySettings()),
        ("identity", "random", MemorySettings()),
    ],
)
def test_a_run_in_rows_reaches_the_weights_of_a_whole_one(
    tmp_path: Path, corpus: str, word: str, rule: str, memory: MemorySettings
) -> None:
    found, values = [], []
    for name, rows in (("whole", None), ("rows", 7)):
        config = run_of(corpus, word, rule, replace(memory, head_rows=rows))
        values.append(train.run(config, tmp_path / name, progress=False).validation)
        found.append(load_run(tmp_path / name).model.state_dict())
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=1e-4, atol=1e-5)


def test_light_learns_in_rows(tmp_path: Path, corpus: str) -> None:
    results = []
    for rows in (None, 7):
        config = small_run(corpus, "odfa", "aligned", memory=MemorySettings(head_rows=rows))
        results.append(train.run(config, tmp_path / str(rows), progress=False))
    assert results[0].light["frames"] == results[1].light["frames"] > 0
    assert results[0].metric["value"] == pytest.approx(results[1].metric["value"], rel=0.1)  # other draws


def test_angles_are_measured_in_rows(corpus: str) -> None:
    found = []
    for memory in (MemorySettings(), ROWS):
        session = build(small_run(corpus, "dfa", "aligned", memory=memory))
        found.append(dict(measure_alignment(session)))
        assert isinstance(session.learner, LinearCrossEntropy) is (memory is ROWS)
        assert session.model.training
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.parametrize("word", ["bp", "odfa"])
def test_a_task_that_takes_all_outputs_is_refused(tmp_path: Path, word: str) -> None:
    config = apply(recipes.get("digits_tiny", word), ["memory.head_rows=4"])
    with pytest.raises(
        ConfigError, match=r"^memory\.head_rows: task=classify computes its loss from all outputs of .*$"
    ):
        train.run(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rule", ["drtp", "kolen_pollack", "forward_gradient"])
def test_a_rule_that_reads_all_of_the_error_is_refused(tmp_path: Path, corpus: str, rule: str) -> None:
    config = small_run(corpus, "dfa", rule, memory=ROWS)
    with pytest.raises(
        ConfigError, match=rf"^memory\.head_rows: rule={rule} reads the error as a whole; expected none.*$"
    ):
        train.run(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_rows_are_a_positive_number() -> None:
    with pytest.raises(ConfigError, match="head_rows: expected a positive number of rows or none, got 0"):
        apply(recipes.whole("digits_tiny"), ["memory.head_rows=0"])


def test_a_dry_run_counts_the_rows(corpus: str) -> None:
    whole, rows = (
        dry_run(small_run(corpus, "dfa", memory=memory))["memory_bytes"]["activations"]
        for memory in (MemorySettings(), ROWS)
    )
    assert whole - rows == (48 - 7) * 270 * 4


def test_a_network_without_a_head(corpus: str) -> None:
    from odfa.session.head_rows import learner_of

    config = small_run(corpus, "bp", memory=ROWS)
    body = torch.nn.Module()
    body.transformer = build(config).model.transformer
    with pytest.raises(ConfigError, match=r"memory\.head_rows: network=gpt2 has no head behind its blocks"):
        learner_of(body, config)


def test_every_language_recipe_takes_it() -> None:
    config = recipes.whole("dialogue_tiny")
    assert config.memory.head_rows is None
    words: Callable[[str], RunConfig] = lambda word: apply(arm(config, word), ["memory.head_rows=16"])  # noqa: E731
    assert all(words(word).memory.head_rows == 16 for word in ("bp", "shallow", "dfa", "odfa", "identity"))
