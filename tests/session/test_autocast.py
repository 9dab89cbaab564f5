"""Mixed precision: weights and moments in float32, the forward pass and the loss under autocast to bfloat16."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cut import train_and_cut
from tests.garments import write_images
from tests.talk import small_run, write_corpus
from torch import nn

from odfa import recipes, train
from odfa.cli import main
from odfa.errors import ConfigError
from odfa.lab.angles import AlignSettings, align
from odfa.session import MemorySettings, RunConfig, build, dry_run
from odfa.settings import apply
from odfa.store import checkpoint, load_run
from odfa.tasks.language import text
from odfa.train import train_step

MIXED = MemorySettings(precision="autocast")
KINDS: tuple[MemorySettings, ...] = tuple(
    replace(MIXED, activations=activations, fused=fused)
    for activations, fused in (("keep", False), ("recompute", True), ("stream", True))
)
QUIET = ["threads=1", "tensorboard=false", "log_every=1"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunConfig]:
    corpus = write_corpus(tmp_path_factory.mktemp("text"))
    return lambda method="dfa", rule="random", memory=MIXED: small_run(corpus, method, rule, memory=memory)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    text._corpus.cache_clear()


def _types(session: Any, action: Callable[[], object]) -> list[torch.dtype]:
    """Of what the head returns during an action."""
    found: list[torch.dtype] = []
    head = session.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, _inputs, output: found.append(output.dtype))
    try:
        action()
    finally:
        hook.remove()
    return found


@pytest.mark.parametrize("memory", KINDS, ids=lambda m: m.activations)
def test_weights_gradients_and_moments_are_float32_and_products_are_not(small, memory: MemorySettings) -> None:
    session = build(small("odfa", "aligned", memory))
    batch = session.splits.train.head(4)
    dfa, blocks = session.dfa, []
    assert dfa is not None
    for block in dfa.blocks.values():
        block.mlp.c_fc.register_forward_hook(lambda _module, _inputs, output: blocks.append(output.dtype))
    assert _types(session, lambda: train_step(session, batch)) == [torch.bfloat16]
    again = 1 if memory.activations == "keep" else 2
    # the first pass of all is watched where blocks run again, and keeps its graph
    assert set(blocks) == {torch.bfloat16}
    assert len(blocks) in (2, 2 * again)
    assert {p.dtype for p in session.model.parameters()} == {torch.float32}
    state = session.optimizer.state_dict()
    held = [value for value in torch.utils._pytree.tree_leaves(state) if isinstance(value, torch.Tensor)]
    assert {value.dtype for value in held if value.numel() > 1} == {torch.float32}
    for action in (lambda: session.evaluate(session.splits.validation), lambda: session.loss(batch)):
        assert set(_types(session, action)) == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("method", "rule"), [("bp", "random"), ("dfa", "random"), ("dfa", "exact"), ("shallow", "")])
def test_gradients_are_those_of_float32_to_the_digits_of_bfloat16(small, method: str, rule: str) -> None:
    """Each product rounds two inputs and a result to 8 bits: by 2^-8 at most, by 2^-9 in the root mean square.

    Roundings are independent, so they add up as squares. A gradient of this GPT of two blocks passes at most six
    products a block (queries and keys, attention's two, its output, two of the MLP) and the head's, forward and
    backward: 2 (2 · 6 + 1) = 26 products of 3 roundings, sqrt(78) · 2^-9 = 1.7 % of its norm.
    """
    found = []
    for memory in (MemorySettings(), MIXED):
        with torch.random.fork_rng(devices=[]):
            session = build(small(method, rule or "random", memory))
            loss = session.loss(session.splits.train.head(16))
            session.dfa.backward(loss) if session.dfa else loss.backward()
        found.append({name: p.grad for name, p in session.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, exact in found[0].items():
        if exact.ndim < 2:  # biases of keys cancel to zero
            continue
        assert found[1][name].dtype == torch.float32
        assert (found[1][name] - exact).norm() < 78**0.5 * 2**-9 * exact.norm(), name


@pytest.mark.parametrize("memory", KINDS[1:], ids=lambda m: m.activations)
def test_blocks_that_run_again_are_cast_again(small, memory: MemorySettings) -> None:
    """Backward is called outside of autocast; a second run in float32 would be another function."""
    found = []
    for kept in (MIXED, memory):
        with torch.random.fork_rng(devices=[]):
            session = build(replace(small("dfa", "random", replace(kept, fused=False))))
            loss = session.loss(session.splits.train.head(16))
            session.dfa.backward(loss)
        found.append({name: p.grad for name, p in session.model.named_parameters()})
    for name, kept_grad in found[0].items():
        torch.testing.assert_close(found[1][name], kept_grad, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("inside", [True, False])
def test_a_streamed_pass_learns_whether_backward_is_in_autocast_or_not(inside: bool) -> None:
    """Casts made in the first run, in which autograd is off, must not be taken for those of the second."""
    from odfa.engine import DFA, RandomFeedback

    grads = []
    for recompute in (False, "stream"):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)), nn.Linear(8, 4))
        dfa = DFA(model, rule=RandomFeedback(), recompute=recompute)
        for _ in range(2):  # the first pass is watched
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(torch.ones(3, 8)), torch.tensor([0, 1, 2]))
                if inside:
                    dfa.backward(loss)
            if not inside:
                dfa.backward(loss)
        grads.append([p.grad for p in model.parameters()])
    for plain, streamed in zip(*grads, strict=True):
        assert streamed is not None
        torch.testing.assert_close(streamed, plain, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("memory", [replace(MIXED, head_rows=5), replace(MIXED, activations="stream", fused=True)])
def test_a_run_cut_in_two_equals_a_whole_one(tmp_path: Path, small, memory: MemorySettings) -> None:
    config = small("odfa", "aligned", memory)
    train.run(config, tmp_path / "whole", progress=False)
    train_and_cut(config, tmp_path / "cut", after=3)
    train.resume(tmp_path / "cut", progress=False)
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    last = [checkpoint.find(tmp_path / name / "checkpoints")[-1] for name in ("whole", "cut")]
    for file in last[0].glob("*.safetensors"):
        assert file.read_bytes() == (last[1] / file.name).read_bytes()
    assert {weight.dtype for weight in load_run(tmp_path / "whole").model.parameters()} == {torch.float32}


def test_what_reads_a_run_computes_as_the_run_did(tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(small("dfa", "aligned"), align_every=3)
    result = train.run(config, tmp_path / "run", progress=False)
    run = load_run(tmp_path / "run")
    test_part = config.task.load(config.data).test
    with run.computing():
        assert config.task.evaluate(run.model, test_part)["perplexity"] == result.metric["value"]
    assert config.task.evaluate(run.model, test_part)["perplexity"] != result.metric["value"]
    found: list[torch.dtype] = []
    usual = nn.Linear.forward

    def noted(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        y = usual(layer, x)
        found.append(y.dtype)
        return y

    monkeypatch.setattr(nn.Linear, "forward", noted)
    align(tmp_path / "run", AlignSettings())
    assert main(["sample", str(tmp_path / "run"), "count=1", "tokens=2"]) == 0
    assert set(found) == {torch.bfloat16}


def test_images_are_drawn_and_judged_in_the_precision_of_their_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    garments = write_images(tmp_path)
    for recipe in ("fashion_diffusion_tiny", "fashion_cnn_tiny"):
        words = ["arm=bp", "precision=autocast", f"path={garments}", "limit=24", "data.validation=8", "batch_size=8"]
        words += ["steps=2", "evaluate_every=none", *QUIET]
        assert main(["train", recipe, *words, "--run-dir", str(tmp_path / recipe)]) == 0, capsys.readouterr().err
    words = [f"by={tmp_path / 'fashion_cnn_tiny'}", "sampler=ddim", "steps=2", "count=100"]
    assert main(["judge", str(tmp_path / "fashion_diffusion_tiny"), *words]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("network", ["mlp", "cnn", "vit"])
def test_vision_networks_learn_under_autocast(tmp_path: Path, network: str) -> None:
    words = ["steps=3", f"network={network}", "memory.precision=autocast", *QUIET]
    result = train.run(apply(recipes.get("digits_tiny", "dfa"), words), tmp_path / "run", progress=False)
    assert result.steps == 3


REFUSED = {
    "linear": (
        lambda c: apply(c, ["granularity=linear"]),
        r"memory\.precision=autocast: expected feedback\.granularity=block or sublayer, got linear",
    ),
}


@pytest.mark.parametrize(("change", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_touched(tmp_path: Path, small, change, told: str) -> None:
    for action in (dry_run, lambda config: train.run(config, tmp_path / "run", progress=False)):
        with pytest.raises(ConfigError, match=told) as refused:
            action(change(small("dfa", "aligned")))
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_device_without_bfloat16_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = apply(recipes.get("digits_tiny", "dfa"), ["steps=2", "memory.precision=autocast", *QUIET])
    monkeypatch.setattr("odfa.session.memory.device_named", lambda _name: torch.device("cuda", 0))
    for able in (False, True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, able=able: able)
        if able:
            train.run(config, tmp_path / "run", progress=False)
            continue
        with pytest.raises(ConfigError, match=r"autocast: expected a device that multiplies bfloat16, got cuda:0; say"):
            train.run(config, tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()


def test_a_dry_run_counts_products_in_two_bytes_and_weights_in_four(small) -> None:
    ways = [MemorySettings(), MIXED, MemorySettings(precision="bfloat16")]
    full, mixed, half = (dry_run(small(memory=memory))["memory_bytes"] for memory in ways)
    assert mixed["weights"] == full["weights"] == 2 * mixed["cast_weights"]
    assert mixed["optimizer"] == full["optimizer"]
    assert full["activations"] > mixed["activations"] > half["activations"]
    assert "cast_weights" not in full
    # by hand: of GPT-2's leaf modules the products are half as large, and dropout and activation behind them
    assert 2 * mixed["activations"] < 2 * full["activations"]


def test_the_plan_of_costs_says_where_it_hears_of_precision(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "digits_tiny", "memory.precision=autocast"]) == 2
    assert "layout.precision" in capsys.readouterr().err
