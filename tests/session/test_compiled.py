"""`compile=true`: the same run to rounding, with the blocks compiled by whatever rule they learn."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.talk import small_run, write_corpus
from torch._dynamo.utils import counters

from odfa import recipes, train
from odfa.cli import main
from odfa.engine import compiled as engine
from odfa.errors import ConfigError, OdfaError
from odfa.scaling.walk import walk_run
from odfa.session import MemorySettings, RunConfig, build, compiled, dry_run
from odfa.settings import apply
from odfa.tasks.language import text
from odfa.train import loop

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself


@pytest.fixture(autouse=True)
def _fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    text._corpus.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler without its code generator, which takes most of the time."""
    monkeypatch.setattr(engine, "USUAL", "aot_eager")
    monkeypatch.setattr(compiled, "USUAL", "aot_eager")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunConfig]:
    corpus = write_corpus(tmp_path_factory.mktemp("text"))

    def make(arm: str, rule: str = "random", activations: str = "keep") -> RunConfig:
        config = small_run(corpus, arm, rule, layers=3, memory=MemorySettings(activations=activations))
        return replace(config, steps=4, checkpoint_every=2)

    return make


WAYS = [
    ("bp", "random", "keep"),
    ("bp", "random", "recompute"),
    ("dfa", "aligned", "keep"),
    ("odfa", "exact", "stream"),
]


INSIDE = [
    ("dfa", "aligned", "keep", "sublayer"),
    pytest.param("odfa", "exact", "stream", "sublayer", marks=pytest.mark.slow),
    pytest.param("dfa", "random", "recompute", "linear", marks=pytest.mark.slow),
    ("odfa", "aligned", "stream", "linear"),
]


def _compare(config: RunConfig, folder: Path) -> None:
    plain = train.run(config, folder / "plain", progress=False)
    assert not counters["stats"]
    ours = train.run(replace(config, compile=True), folder / "compiled", progress=False)
    assert ours.metric["value"] == pytest.approx(plain.metric["value"], rel=1e-3)
    assert not counters["graph_break"]
    # one for passes without a graph, and in training for inputs that ask for a gradient and such that do not
    assert 2 <= counters["stats"]["unique_graphs"] <= 4


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("arm", "rule", "activations"), WAYS)
def test_a_run_with_compiled_blocks_learns_the_same(tmp_path, small, arm, rule, activations) -> None:
    _compare(small(arm, rule, activations), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("arm", "rule", "activations"), WAYS)
def test_inductor_learns_the_same(tmp_path, small, arm, rule, activations) -> None:
    _compare(small(arm, rule, activations), tmp_path)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("arm", "rule", "activations", "granularity"), INSIDE)
def test_feedback_inside_compiled_blocks_learns_the_same(tmp_path, small, arm, rule, activations, granularity) -> None:
    _compare(apply(small(arm, rule, activations), [f"feedback.granularity={granularity}"]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("arm", "rule", "activations", "granularity"), INSIDE)
def test_inductor_learns_the_same_inside_blocks(tmp_path, small, arm, rule, activations, granularity) -> None:
    _compare(apply(small(arm, rule, activations), [f"feedback.granularity={granularity}"]), tmp_path)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("granularity", ["sublayer", "linear"])
def test_a_resumed_run_with_feedback_inside_compiled_blocks_is_the_run(
    tmp_path, small, monkeypatch, granularity
) -> None:
    config = apply(small("dfa", "aligned"), [f"feedback.granularity={granularity}", "compile=true"])
    whole = train.run(config, tmp_path / "whole", progress=False)
    step = loop.train_step

    def third(session, batch):
        if session.step == 2:
            raise RuntimeError("stopped")
        return step(session, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", third)
        with pytest.raises(RuntimeError, match="stopped"):
            train.run(config, tmp_path / "stopped", progress=False)
    assert train.run(config, tmp_path / "stopped", resume=True, progress=False).metric == whole.metric


@pytest.mark.usefixtures("quick")
def test_blocks_inside_a_group_are_compiled_too(small) -> None:
    config = apply(small("dfa"), ["feedback.group=2", "compile=true"])
    session = build(config)
    assert list(session.dfa.blocks) == ["transformer.h.0", "transformer.h.2"]
    assert all("forward" in session.model.get_submodule(name).__dict__ for name in config.network.blocks)


def test_what_cannot_be_compiled_is_said_before_anything_is_written(small, tmp_path, monkeypatch, capsys) -> None:
    run = replace(small("dfa"), compile=True)
    for words, told in (
        (
            ["rule=forward_gradient"],
            "compile=true: expected a rule without forward products, got rule=forward",
        ),
    ):
        with pytest.raises(ConfigError, match=told):
            dry_run(apply(run, words))
        with pytest.raises(OdfaError, match=told):
            train.run(apply(run, words), tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    with torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "no-compiler"),)}):
        with pytest.raises(ConfigError, match=r"compile=true: expected a C\+\+ compiler, got none; install g\+\+"):
            dry_run(run)
        assert main(["train", "digits_tiny", "compile=true", "--dry-run"]) == 2
    assert "expected a C++ compiler" in capsys.readouterr().err


def test_a_compiled_run_is_counted_without_compiling() -> None:
    config = recipes.get("digits_tiny", "dfa")
    counted, plain = (walk_run(replace(config, compile=choice), config.data.peek()) for choice in (True, False))
    assert counted.forward == plain.forward
    assert not counters["stats"]
