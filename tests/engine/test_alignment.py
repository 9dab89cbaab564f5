"""Angles between local and true gradients: right where the answer is known, immune to tiny gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead, ElectronicOnly, RandomFeedback
from odfa.engine.rules import AbstractRule
from odfa.errors import MatchError
from tests.engine.problems import IDS, PROBLEMS, gradients, make
from tests.engine.test_invariants import Oracle, true_signals


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_true_norms_are_backpropagations_and_local_norms_are_the_engines(name: str) -> None:
    """The chain across the cuts is backpropagation, block by block, on every architecture."""
    model, problem = make(name, torch.float64)
    true = gradients(model, problem.loss)
    dfa = DFA(model, problem.blocks)
    local = gradients(model, problem.loss)
    model.zero_grad()
    with dfa.measure_alignment() as angles:
        problem.loss(model).backward()
    assert set(angles) == set(dfa.blocks)
    assert len(angles) == problem.found
    assert dfa.members is not None
    seen: set[str] = set()
    for block, names in dfa.members.blocks.items():
        if names & seen or names & dfa.members.behind:
            continue  # shared weights: their gradient is a sum over places
        seen |= names
        theirs = [torch.cat([g[n].flatten() for n in sorted(names)]) for g in (local, true)]
        assert math.isclose(angles.norms[block][0], theirs[0].norm().item(), rel_tol=1e-7)
        if not problem.cuts_sides or block == list(dfa.blocks)[-1]:
            assert math.isclose(angles.norms[block][1], theirs[1].norm().item(), rel_tol=1e-7), block
        cosine = F.cosine_similarity(theirs[0], theirs[1], dim=0).item()
        if math.isclose(angles.norms[block][1], theirs[1].norm().item(), rel_tol=1e-7):
            assert math.isclose(angles[block], cosine, abs_tol=1e-7)


@pytest.mark.parametrize("name", ["t5", "unet"])
def test_true_gradients_are_chained_over_side_outputs_too(name: str) -> None:
    model, problem = make(name, torch.float64)
    true = gradients(model, problem.loss)
    dfa = DFA(model, problem.blocks)
    with dfa.measure_alignment() as angles:
        problem.loss(model).backward()
    owned = {n: [p for p, _ in model.named_parameters() if p.startswith(n + ".")] for n in dfa.blocks}
    for block in list(dfa.blocks)[1:]:
        if set(owned[block]) == dfa_members(dfa, block):
            expected = torch.cat([true[n].flatten() for n in sorted(owned[block])]).norm().item()
            assert math.isclose(angles.norms[block][1], expected, rel_tol=1e-7), block


def dfa_members(dfa: DFA, block: str) -> set[str]:
    return dfa.members.blocks[block] if dfa.members is not None else set()


@pytest.mark.parametrize("name", ["mlp", "gpt2", "vit", "cnn"])
def test_true_feedback_has_cosine_one(name: str) -> None:
    model, problem = make(name, torch.float64)
    truth: list[Tensor] = []
    dfa = DFA(model, problem.blocks, rule=Oracle(truth))
    truth.extend(true_signals(model, dfa, problem.loss))
    with dfa.measure_alignment() as angles:
        problem.loss(model).backward()
    assert all(abs(cosine - 1) < 1e-9 for cosine in angles.values())


@pytest.mark.parametrize("factor", [1e-25, 1e-12, 1e8])
def test_tiny_and_huge_gradients_neither_fake_nor_hide_an_angle(factor: float) -> None:
    model, problem = make("mlp")
    dfa = DFA(model, problem.blocks)

    def angles_at(scale: float) -> dict[str, float]:
        with dfa.measure_alignment() as angles:
            (scale * problem.loss(model)).backward()
        return dict(angles)

    plain, scaled = angles_at(1.0), angles_at(factor)
    for block, cosine in plain.items():
        assert abs(scaled[block] - cosine) < 1e-3


def test_a_gradient_of_exactly_zero_has_no_angle() -> None:
    model, problem = make("mlp")
    dfa = DFA(model, problem.blocks)
    with dfa.measure_alignment() as angles:
        (0.0 * problem.loss(model)).backward()
    assert all(math.isnan(cosine) for cosine in angles.values())
    assert all(norms == (0.0, 0.0) for norms in angles.norms.values())


@pytest.mark.parametrize(
    "rule", [RandomFeedback(), AlignedHead(rank=2, every=1), ElectronicOnly(rank=2)], ids=lambda r: r.kind
)
def test_measuring_leaves_weights_gradients_and_training_alone(rule: AbstractRule) -> None:
    model, problem = make("gpt2", torch.float64)
    dfa = DFA(model, problem.blocks, rule=rule)
    before = {n: g.clone() for n, g in gradients(model, problem.loss).items()}
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    with dfa.measure_alignment() as angles:
        problem.loss(model).backward()
    assert len(angles) == 3
    assert dfa.mode == "learn"
    for n, p in model.named_parameters():
        assert torch.equal(p, weights[n])
        assert torch.equal(p.grad, before[n])
    after = gradients(model, problem.loss)
    for n in before:
        torch.testing.assert_close(after[n], before[n], rtol=1e-9, atol=1e-13)


def test_aligned_head_starts_aligned_where_random_feedback_does_not() -> None:
    model, problem = make("gpt2")
    angles = {}
    for rule in (RandomFeedback(), AlignedHead(rank=0)):
        dfa = DFA(model, problem.blocks, rule=rule)
        with dfa.measure_alignment() as measured:
            problem.loss(model).backward()
        dfa.remove()
        angles[rule.kind] = dict(measured)
    assert angles["aligned"]["transformer.h.2"] == pytest.approx(
        1.0, abs=1e-5
    )  # the last block's signal is exact at the start
    assert all(angles["aligned"][b] > 0.5 > abs(angles["random"][b]) for b in angles["aligned"])


def test_a_context_without_backward_is_an_error_and_gradients_come_back() -> None:
    model, problem = make("mlp")
    dfa = DFA(model, problem.blocks)
    before = gradients(model, problem.loss)
    with pytest.raises(MatchError, match="no backward"), dfa.measure_alignment():
        problem.loss(model)
    assert all(torch.equal(p.grad, before[n]) for n, p in model.named_parameters())
    assert dfa.mode == "learn"


def test_an_error_inside_the_context_restores_everything() -> None:
    model, problem = make("mlp")
    dfa = DFA(model, problem.blocks)
    before = gradients(model, problem.loss)
    with pytest.raises(RuntimeError, match="mine"), dfa.measure_alignment():
        raise RuntimeError("mine")
    assert dfa.mode == "learn"
    assert all(torch.equal(p.grad, before[n]) for n, p in model.named_parameters())


def test_reentrant_checkpointing_inside_blocks_is_refused() -> None:
    from tests.engine.test_handled import Checkpointed, X, Y

    model = Checkpointed(True, (0, 1, 2)).double()
    dfa = DFA(model, "blocks.*")
    with pytest.raises(MatchError, match="use_reentrant=False"), dfa.measure_alignment():
        F.cross_entropy(model(X), Y).backward()


def test_readable_report() -> None:
    model: nn.Module
    model, problem = make("gpt2")
    dfa = DFA(model, problem.blocks)
    with dfa.measure_alignment() as angles:
        model(input_ids=IDS, labels=IDS).loss.backward()
    assert "transformer.h.0" in repr(angles)
    assert "|true|" in repr(angles)
