"""Updates fused into backward equal ordinary ones, and leave no gradient behind."""

import copy

import pytest
import torch

from odfa.engine import DFA, AlignedReadout, RandomFeedback, fuse_optimizer
from odfa.engine.rules import AbstractRule
from odfa.errors import CheckpointError, ConfigError
from tests.engine.problems import make


@pytest.mark.parametrize(
    "rule", [None, RandomFeedback(), AlignedReadout(rank=2, every=2)], ids=lambda r: r.name if r else "bp"
)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["mlp", "gpt2", "dit"])
def test_fused_updates_equal_ordinary_ones(name: str, recompute: bool, rule: AbstractRule | None) -> None:
    model, problem = make(name)
    if hasattr(model, "config") and hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    other = copy.deepcopy(model)
    for m in (model, other):
        if rule is not None:
            DFA(m, problem.blocks, rule=rule, recompute=recompute)
    plain = torch.optim.Adam(model.parameters(), lr=1e-2)
    fused = fuse_optimizer(other, lambda p: torch.optim.Adam(p, lr=1e-2))
    for _ in range(4):
        plain.zero_grad()
        problem.loss(model).backward()
        plain.step()
        problem.loss(other).backward()
        assert all(p.grad is None for p in other.parameters())
    for (n, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=lambda m, n=n: f"{n}: {m}")
    fused.remove()
    problem.loss(other).backward()
    assert any(p.grad is not None for p in other.parameters())


def test_state_round_trip_and_learning_rates() -> None:
    model, problem = make("mlp")
    fused = fuse_optimizer(model, lambda p: torch.optim.Adam(p, lr=1e-2))
    problem.loss(model).backward()
    state = copy.deepcopy(fused.state_dict())
    twin = copy.deepcopy(make("mlp")[0])
    again = fuse_optimizer(twin, lambda p: torch.optim.Adam(p, lr=1e-2))
    again.load_state_dict(state)
    assert again.state_dict()["1.weight"]["state"][0]["step"] == 1
    for group in again.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in twin.parameters()]
    problem.loss(twin).backward()
    assert all(torch.equal(p, q) for p, q in zip(twin.parameters(), before, strict=True))
    with pytest.raises(CheckpointError, match="differ in"):
        again.load_state_dict({"else": {}})


def test_nothing_to_optimise() -> None:
    model, _ = make("mlp")
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to optimise"):
        fuse_optimizer(model, lambda p: torch.optim.SGD(p, lr=0.1))
