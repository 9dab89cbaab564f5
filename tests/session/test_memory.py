"""Training with less memory is the same training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.cut import train_and_cut
from tests.talk import small_run, write_corpus

from odfa import train
from odfa.arms import arm
from odfa.errors import ConfigError, OdfaError
from odfa.session import MemorySettings, RunConfig, SgdSettings, build, disk, dry_run
from odfa.store import checkpoint, load_run, shards
from odfa.tasks.language import text

LEAN = MemorySettings(activations="stream", fused=True)
CHECKPOINTED = MemorySettings(activations="recompute", fused=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunConfig]:
    """`small(method, rule, memory)`: six steps of a GPT of three blocks."""
    corpus = write_corpus(tmp_path_factory.mktemp("text"))

    def make(method: str = "dfa", rule: str = "random", memory: MemorySettings | None = None) -> RunConfig:
        return small_run(corpus, method, rule, layers=3, memory=memory)

    return make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    text._corpus.cache_clear()


WAYS = [
    ("bp", "random", CHECKPOINTED),
    ("shallow", "random", LEAN),
    ("dfa", "random", LEAN),
    ("dfa", "aligned", CHECKPOINTED),
    ("odfa", "aligned", LEAN),
]


@pytest.mark.parametrize(("method", "rule", "memory"), WAYS)
def test_lean_steps_reach_the_weights_of_ordinary_ones(tmp_path, small, method, rule, memory) -> None:
    losses = []
    for name, kept in (("plain", MemorySettings()), ("lean", memory)):
        result = train.run(small(method, rule, kept), tmp_path / name, progress=False)
        losses.append(result.metric["value"])
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    plain, lean = (load_run(tmp_path / name).model.state_dict() for name in ("plain", "lean"))
    far = max(float((lean[name] - plain[name]).abs().max()) for name in plain)
    assert far < 5e-3  # Adam's steps of 1e-2 magnify the last bit where a gradient is almost zero


@pytest.mark.filterwarnings("ignore")  # torch's compiler, which torchao uses, warns of itself
@pytest.mark.parametrize(
    ("precision", "storage"), [("float32", "memory"), ("bfloat16", "memory"), ("bfloat16", "disk")]
)
def test_a_lean_run_cut_in_two_equals_a_whole_one(tmp_path, small, monkeypatch, precision, storage) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 4096)
    monkeypatch.setattr(disk, "LARGE_BYTES", 1)
    config = small("odfa", "aligned", replace(LEAN, precision=precision, storage=storage))
    train.run(config, tmp_path / "whole", progress=False)
    train_and_cut(config, tmp_path / "cut", after=3)
    train.resume(tmp_path / "cut", progress=False)
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    last = [checkpoint.find(tmp_path / name / "checkpoints")[-1] for name in ("whole", "cut")]
    files = [sorted(file.name for file in folder.iterdir()) for folder in last]
    assert files[0] == files[1]
    assert "model-00002.safetensors" in files[0]
    for name in files[0]:
        if name.endswith(".safetensors"):
            assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()
    weights = load_run(tmp_path / "whole").model.state_dict()
    assert {weight.dtype for weight in weights.values()} == {getattr(torch, precision)}


REFUSED = {
    "stream": (lambda c: replace(arm(c, "bp"), memory=LEAN), "memory.activations=stream: backpropagation"),
    "clip": (
        lambda c: replace(c, memory=LEAN, optimizer=replace(c.optimizer, clip_norm=1.0)),
        "expected optimizer.clip_norm=none, got 1; optimizer.clip_each clips each tensor",
    ),
    "sgd": (
        lambda c: replace(c, memory=MemorySettings(precision="bfloat16"), optimizer=SgdSettings()),
        "expected an optimizer that rounds stochastically, such as adam, got sgd",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(tmp_path: Path, small, change, message: str) -> None:
    for action in (dry_run, lambda config: train.run(config, tmp_path / "run", progress=False)):
        with pytest.raises(ConfigError, match=message):
            action(change(small()))
    assert not (tmp_path / "run").exists()


def test_a_shard_that_is_missing_is_named(tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 4096)
    train.run(small(), tmp_path / "run", progress=False)
    newest = checkpoint.find(tmp_path / "run/checkpoints")[-1]
    (newest / "model-00002.safetensors").unlink()
    with pytest.raises(OdfaError, match=r"is corrupt \(model-00002\.safetensors\)"):
        load_run(tmp_path / "run")


def test_a_large_tensor_gets_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 100)
    tensors = {f"t{k}": torch.randn(size) for k, size in enumerate((3, 60, 5, 9, 10, 1, 1))}
    shards.write_tensors(tmp_path, "model", tensors)
    shards.seal(tmp_path)
    files = shards.verify(tmp_path)
    assert len(files) == 4
    read = dict(shards.read_tensors(files, "model"))
    assert list(read) == list(tensors)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    forms = shards.read_forms(files, "model")
    assert {name: (t.dtype, t.shape) for name, t in forms.items()} == {
        name: (t.dtype, t.shape) for name, t in tensors.items()
    }


def test_a_dry_run_counts_what_is_kept(small) -> None:
    ways = [MemorySettings(), CHECKPOINTED, LEAN, replace(LEAN, precision="bfloat16")]
    keep, recompute, stream, half = (dry_run(small(memory=memory))["memory_bytes"] for memory in ways)
    assert keep["activations"] > recompute["activations"] > stream["activations"] > half["activations"]
    assert recompute["activations"] - stream["activations"] == 3 * 4 * 12 * 16 * 4  # one input of (4, 12, 16) a block
    assert stream["gradients"] == max(270 * 16, 16 * 64) * 4
    assert half["weights"] * 2 == keep["weights"] == keep["gradients"]


@pytest.mark.parametrize("memory", [MemorySettings(), LEAN])
def test_embeddings_and_read_out_move_with_their_shares_of_the_rate(small, memory) -> None:
    config = small("dfa", "random", memory)
    config = replace(
        config,
        optimizer=SgdSettings(learning_rate=config.optimizer.learning_rate, momentum=0.0, schedule="constant"),
    )

    def moved(embedding_share: float, head_share: float) -> dict[str, torch.Tensor]:
        session = build(
            replace(
                config,
                optimizer=replace(config.optimizer, embedding_share=embedding_share),
                feedback=replace(config.feedback, head_share=head_share),
            )
        )
        before = {name: p.detach().clone() for name, p in session.model.named_parameters()}
        train.train_step(session, session.splits.train.head(config.batch_size))
        return {name: p.detach() - before[name] for name, p in session.model.named_parameters()}

    plain, shared = moved(1.0, 1.0), moved(8.0, 0.5)
    for name, step in plain.items():
        share = 8.0 if name in ("transformer.wte.weight", "transformer.wpe.weight") else 1.0
        share = 0.5 if name == "lm_head.weight" else share
        torch.testing.assert_close(shared[name], share * step, rtol=1e-2, atol=1e-6)
