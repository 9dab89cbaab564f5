"""Muon: matrices in blocks by its paper's formulas, everything else by Adam, and both in one run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cut import train_and_cut
from tests.engine.test_needs import RATE, net
from tests.talk import small_run, write_corpus
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from odfa import recipes, train
from odfa.arms import arm
from odfa.cli import main
from odfa.errors import ConfigError
from odfa.session import MemorySettings, MuonSettings, RunConfig, build, disk, dry_run
from odfa.session.optimizers import Group
from odfa.settings import apply
from odfa.store import checkpoint
from odfa.tasks.language import text

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = [(12, 12), (24, 6), (6, 24), (1, 9)]
NEAR = 0.04
"""Of the largest entry of a step: what bfloat16, with 8 bits, leaves of five Newton-Schulz steps."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    text._corpus.cache_clear()


@pytest.fixture
def talk(tmp_path: Path) -> RunConfig:
    """Six steps of a GPT-2 of two blocks by backpropagation."""
    config = small_run(write_corpus(tmp_path), "bp")
    return replace(config, optimizer=MuonSettings(embedding_share=2.0, weight_decay=0.1, warmup_steps=2))


def orthogonalised(matrix: np.ndarray, steps: int) -> np.ndarray:
    """X ← a X + b (X X^T) X + c (X X^T)^2 X from X = matrix / its Frobenius norm, in float64, entry by entry."""
    a, b, c = COEFFICIENTS
    x = matrix / np.sqrt((matrix**2).sum())
    for _ in range(steps):
        gram = np.array([[sum(p * q for p, q in zip(one, two, strict=True)) for two in x] for one in x])
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def reference(start: Tensor, gradients: Sequence[Tensor], muon: MuonSettings) -> list[np.ndarray]:
    """The weight after each step: outputs x inputs, as the paper has it."""
    weight, average = start.double().numpy(), np.zeros(start.shape)
    outputs, inputs = start.shape
    original = max(1.0, outputs / inputs) ** 0.5
    factor = original if muon.adjust == "original" else 0.2 * max(outputs, inputs) ** 0.5
    after = []
    for gradient in gradients:
        g = gradient.double().numpy()
        average = muon.momentum * average + (1 - muon.momentum) * g
        seen = muon.momentum * average + (1 - muon.momentum) * g if muon.nesterov else average
        weight = weight * (1 - muon.learning_rate * muon.weight_decay)
        weight = weight - muon.learning_rate * factor * orthogonalised(seen, muon.newton_steps)
        after.append(weight)
    return after


def moved(start: Tensor, gradients: Sequence[Tensor], muon: MuonSettings, role: str = "matrix") -> list[Tensor]:
    """The same by the optimiser that is built; the rates are set as the training loop sets them."""
    weight = nn.Parameter(start.clone())
    optimizer = muon.build([{"params": [weight], "rate_share": 1.0, "role": role}])
    for group in optimizer.param_groups:
        group["lr"] = muon.learning_rate * group["rate_share"]
    after = []
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        after.append(weight.detach().clone())
    return after


def drawn(shape: tuple[int, ...], count: int) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(3)
    return torch.randn(shape), [torch.randn(shape) for _ in range(count)]


VARIANTS = [
    MuonSettings(weight_decay=0.5),
    MuonSettings(nesterov=False, momentum=0.5),
    MuonSettings(momentum=0.0),
    MuonSettings(newton_steps=3, adjust="match_rms_adamw", learning_rate=0.3),
]


def apart(ours: Sequence[Tensor], theirs: Sequence[np.ndarray], start: Tensor) -> float:
    """Largest difference of two paths, over the largest entry of the whole move."""
    size = max(np.abs(one - start.numpy()).max() for one in theirs)
    return float(max(np.abs(a.double().numpy() - b).max() for a, b in zip(ours, theirs, strict=True)) / size)


@pytest.mark.parametrize("muon", VARIANTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_matrix_takes_the_steps_of_the_paper(shape: tuple[int, int], muon: MuonSettings) -> None:
    start, gradients = drawn(shape, 3)
    assert apart(moved(start, gradients, muon), reference(start, gradients, muon), start) < NEAR


@pytest.mark.parametrize(
    "other", [{"nesterov": False}, {"momentum": 0.7}, {"newton_steps": 4}, {"adjust": "match_rms_adamw"}]
)
def test_another_setting_is_further_from_the_paper_than_rounding(other: dict[str, object]) -> None:
    start, gradients = drawn((24, 6), 3)
    ours = moved(start, gradients, replace(MuonSettings(), **other))
    assert apart(ours, reference(start, gradients, MuonSettings()), start) > 2 * NEAR


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("muon", VARIANTS)
def test_a_weight_kept_transposed_takes_the_same_steps(shape: tuple[int, int], muon: MuonSettings) -> None:
    start, gradients = drawn(shape, 3)
    turned = moved(start.T.contiguous(), [g.T.contiguous() for g in gradients], muon, "transposed matrix")
    for ours, theirs in zip(turned, moved(start, gradients, muon), strict=True):
        # square ones are multiplied from the other side, which rounds otherwise
        within = NEAR * muon.learning_rate if shape[0] == shape[1] else 1e-6
        torch.testing.assert_close(ours.T, theirs, rtol=0, atol=3 * within)


def test_the_groups_of_a_run(talk: RunConfig) -> None:
    session = build(talk)
    names = {parameter: name for name, parameter in session.model.named_parameters()}
    found: dict[tuple[str, float], set[str]] = {}
    for group in session.optimizer.param_groups:
        key = (group["role"], round(group["rate_share"] ** 2, 6))
        found.setdefault(key, set()).update(names[parameter] for parameter in group["params"])
    blocks, turned = ("transformer.h.0", "transformer.h.1"), "transposed matrix"
    matrices = {
        (turned, 3.0): {f"{block}.attn.c_attn.weight" for block in blocks},  # outputs over inputs
        (turned, 1.0): {f"{block}.attn.c_proj.weight" for block in blocks},
        (turned, 4.0): {f"{block}.mlp.c_fc.weight" for block in blocks},
        (turned, 0.25): {f"{block}.mlp.c_proj.weight" for block in blocks},
    }
    embeddings = {"transformer.wte.weight", "transformer.wpe.weight"}
    rest = {*names.values()} - embeddings - set[str]().union(*matrices.values())
    assert found == matrices | {("", 0.01): embeddings, ("", 0.0025): rest}
    assert {"lm_head.weight", "transformer.h.0.ln_1.weight", "transformer.h.0.attn.c_attn.bias"} <= rest
    fed = build(replace(arm(talk, "dfa:random"), optimizer=MuonSettings()))
    head = next(group for group in fed.optimizer.param_groups if fed.model.lm_head.weight in set(group["params"]))
    assert (head["role"], head["rate_share"]) == ("", 0.05 * fed.config.feedback.head_share)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_rest_moves_as_adam_alone_would_move_it(decay: float) -> None:
    muon = MuonSettings(weight_decay=decay, rest_share=0.1, betas=(0.8, 0.95), schedule="constant")
    base = apply(recipes.get("digits_tiny", "bp"), ["threads=1"])
    session = build(replace(base, optimizer=muon))
    rest = [p for group in session.optimizer.param_groups if not group["role"] for p in group["params"]]
    assert {p.ndim for p in rest} == {1, 2}  # biases, and the head's weight
    twins = [nn.Parameter(p.detach().clone()) for p in rest]
    plain = {"lr": 0.02 * 0.1, "betas": (0.8, 0.95), "fused": True}
    adam = torch.optim.AdamW(twins, weight_decay=decay, **plain) if decay else torch.optim.Adam(twins, **plain)
    for batch in (session.splits.train.head(40), session.splits.train.take(torch.arange(40, 90))):
        train.train_step(session, batch)
        for p, twin in zip(rest, twins, strict=True):
            twin.grad = p.grad.clone()
        adam.step()
        assert all(torch.equal(p, twin) for p, twin in zip(rest, twins, strict=True))


WAYS = [
    ("dfa:aligned", MemorySettings()),
    ("bp", MemorySettings(activations="recompute", fused=True)),
    ("odfa:random", MemorySettings(activations="stream", fused=True, storage="disk")),
    ("shallow", MemorySettings()),
]


@pytest.mark.parametrize(("word", "memory"), WAYS)
def test_a_run_cut_in_two_equals_a_whole_one(
    tmp_path: Path, talk: RunConfig, monkeypatch: pytest.MonkeyPatch, word: str, memory: MemorySettings
) -> None:
    monkeypatch.setattr(disk, "LARGE_BYTES", 1)
    ruled = arm(talk, word)
    rule = replace(ruled.rule, rank=2, every=2) if word == "dfa:aligned" else ruled.rule
    config = replace(ruled, rule=rule, memory=memory, optimizer=replace(talk.optimizer, average=0.9))
    train.run(config, tmp_path / "whole", progress=False)
    train_and_cut(config, tmp_path / "cut", after=5)  # two steps after its checkpoint
    train.resume(tmp_path / "cut", progress=False)
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    whole, cut = (checkpoint.find(tmp_path / name / "checkpoints")[-1] for name in ("whole", "cut"))
    files = [file.name for file in sorted(whole.glob("*.safetensors"))]
    assert "optimizer.safetensors" in files
    assert all((whole / name).read_bytes() == (cut / name).read_bytes() for name in files)


@pytest.mark.parametrize(
    "memory", [MemorySettings(storage="disk"), MemorySettings(activations="recompute", fused=True)]
)
def test_other_memory_is_the_same_training(talk: RunConfig, monkeypatch: pytest.MonkeyPatch, memory) -> None:
    monkeypatch.setattr(disk, "LARGE_BYTES", 1)

    def weights(config: RunConfig) -> list[Tensor]:
        session = build(config)
        for _ in range(2):
            train.train_step(session, session.splits.train.head(4))
        return [parameter.detach() for parameter in session.model.parameters()]

    for ours, theirs in zip(weights(replace(talk, memory=memory)), weights(talk), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_rule_is_told_once_when_all_weights_have_moved() -> None:
    model = net()
    muon = MuonSettings(learning_rate=RATE)
    roles = muon.roles(model, ["0", "1"])
    parts: dict[str, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        parts.setdefault(roles.get(parameter, ""), []).append(parameter)
    groups: list[Group] = [{"params": params, "rate_share": 1.0, "role": role} for role, params in parts.items()]
    assert len(groups) == 2
    optimizer, before = muon.build(groups), [p.detach().clone() for p in model.parameters()]
    told: list[tuple[object, bool]] = []

    def hook(stepped: torch.optim.Optimizer, *_: object) -> None:
        told.append((stepped, all(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))))

    torch.optim.Muon([nn.Parameter(torch.ones(2, 2))])  # others have wrapped the step of their class
    listening = register_optimizer_step_post_hook(hook)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    listening.remove()
    assert told == [(optimizer, True)]


def test_a_plan_counts_one_moment_of_a_matrix_and_two_of_other_weights(talk: RunConfig) -> None:
    session = build(talk)
    for memory in (MemorySettings(), MemorySettings(fused=True)):
        planned = dry_run(replace(talk, memory=memory))["memory_bytes"]["optimizer"]
        matrices = sum(p.numel() for name, p in session.model.named_parameters() if ".h." in name and p.ndim == 2)
        assert planned == 4 * (matrices + 2 * (session.num_parameters - matrices))
    train.train_step(session, session.splits.train.head(4))
    state = session.optimizer.state
    assert planned == 4 * sum(t.numel() for kept in state.values() for name, t in kept.items() if name != "step")


REFUSED = {
    "no matrices": (
        ["arm=bp", "network=cnn", "network.width=8"],
        r"optimizer=muon: expected blocks with matrices .* expected optimizer=adam",
    ),
    "bfloat16": (
        ["memory.precision=bfloat16"],
        "expected an optimizer that rounds stochastically, such as adam, got muon",
    ),
    "shallow": (["arm=shallow", "newton_steps=3"], "rule=shallow leaves the blocks as they are"),
    "no average": (["momentum=0", "nesterov=false"], "momentum=0 averages nothing; leave it out"),
    "clip": (["fused=true", "clip_norm=1"], "expected optimizer.clip_norm=none, got 1"),
    "steps": (["newton_steps=100"], "newton_steps: expected a positive number up to 99, got 100"),
    "share": (["rest_share=0"], "rest_share: expected a positive number, got 0"),
    "momentum": (["momentum=1"], r"momentum: expected a number in \[0, 1\), got 1"),
    "betas": (["betas=0.9,1"], r"betas: expected two numbers in \[0, 1\)"),
    "adjust": (["adjust=none"], "adjust: expected original or match_rms_adamw"),
}


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_before_there_is_a_folder(tmp_path: Path, words: list[str], told: str) -> None:
    for action in (dry_run, lambda config: train.run(config, tmp_path / "run", progress=False)):
        with pytest.raises(ConfigError, match=told) as caught:
            action(recipes.worded("digits_tiny", ["optimizer=muon", *words])[1])
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("kind", "word"), [("adam", "newton_steps=3"), ("sgd", "rest_share=1")])
def test_other_kinds_have_none_of_its_settings(kind: str, word: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting .*; these have it: optimizer=muon"):
        apply(recipes.get("digits_tiny"), [f"optimizer={kind}", word])
    assert apply(recipes.get("digits_tiny"), ["optimizer=muon"]).optimizer.learning_rate == 0.02  # not the recipe's


def test_the_help_lists_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "digits_tiny", "optimizer=muon", "--help"])
    said = capsys.readouterr().out
    for name in ("learning_rate", "rest_share", "momentum", "nesterov", "newton_steps", "adjust", "betas"):
        assert name in said
