"""A head that learns within low rank of its start: its feedback is the exact product."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa.engine import DFA, AlignedHead, LowRankHead, fuse_optimizer
from odfa.errors import MatchError
from odfa.flow import ErrorSignal
from odfa.keys import torch_generator
from odfa.project import Gaussian
from tests.engine.test_hops import CLASSES, DEPTH, Gpt

BATCH, TOKENS = 3, 5


def gpt() -> Gpt:
    torch.manual_seed(0)
    return Gpt().double()


def words(number: int) -> tuple[Tensor, Tensor]:
    drawn = torch.randint(0, CLASSES, (2, BATCH, TOKENS), generator=torch_generator(3, number))
    return drawn[0], drawn[1]


def loss_of(model: nn.Module, number: int) -> Tensor:
    x_BT, y_BT = words(number)
    return cross_entropy(model(x_BT).flatten(0, 1), y_BT.flatten())


def learn(model: nn.Module, steps: range, optimizer: torch.optim.Optimizer) -> None:
    for number in steps:
        optimizer.zero_grad()
        loss_of(model, number).backward()
        optimizer.step()


def attached(rank: int, hops: int = 0) -> tuple[Gpt, DFA, Tensor]:
    """The model, its handle, and the head's start."""
    model = gpt()
    dfa = DFA(model, "blocks.*", projection=Gaussian(seed=2), rule=LowRankHead(rank=rank, hops=hops))
    return model, dfa, model.head.weight.detach().clone()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-2)


@settings(deadline=None, max_examples=12)
@given(rank=st.integers(0, CLASSES - 1), steps=st.integers(1, 6))
def test_the_signal_is_the_exact_product_at_every_step(rank: int, steps: int) -> None:
    model, dfa, start_VK = attached(rank)
    learn(model, range(steps), adam(model))
    drift_VK = model.head.weight.detach() - start_VK
    assert int(torch.linalg.matrix_rank(drift_VK, tol=1e-10)) <= rank
    assert (drift_VK.norm() > 1e-3) == (rank > 0)
    e_ND = torch.randn(4, CLASSES, dtype=torch.float64, generator=torch_generator(5))
    (q_NK,) = dfa.at_work.signals(ErrorSignal(e_ND=e_ND, tap="logits", lead=(4,)), [])
    torch.testing.assert_close(q_NK, e_ND @ model.head.weight.detach())


def test_a_step_is_cut_to_its_best_approximation() -> None:
    """The step of plain gradient descent, worked out by autograd, and its singular value decomposition."""
    model, _, start_VK = attached(2)
    twin = gpt()
    twin.load_state_dict(model.state_dict())
    loss_of(twin, 0).backward()
    learn(model, range(1), torch.optim.SGD(model.parameters(), lr=0.5))
    u, s, v = torch.linalg.svd(-0.5 * twin.head.weight.grad, full_matrices=False)
    assert s[2] > 0.05 * s[0]  # something is cut
    torch.testing.assert_close(model.head.weight.detach(), start_VK + (u[:, :2] * s[:2]) @ v[:2])


def test_with_as_many_hops_as_blocks_it_is_backpropagation_after_any_step() -> None:
    """Of the blocks and of the head, at the weights that it has come to; an aligned head has left its correction."""
    gradients: dict[str, float] = {}
    for rule in (LowRankHead(rank=1, hops=DEPTH), AlignedHead(rank=1, hops=DEPTH)):
        model = gpt()
        DFA(model, "blocks.*", projection=Gaussian(seed=2), rule=rule)
        learn(model, range(5), adam(model))
        plain = gpt()
        plain.load_state_dict(model.state_dict())
        model.zero_grad()
        for each in (model, plain):
            loss_of(each, 9).backward()
        off = [
            (p.grad - q.grad).norm() / q.grad.norm()
            for p, q in zip(model.parameters(), plain.parameters(), strict=True)
        ]
        gradients[rule.kind] = float(max(off))
    assert gradients["low_rank"] < 1e-9
    assert gradients["aligned"] > 1e-2


def test_a_resumed_head_goes_on_bit_for_bit() -> None:
    model, dfa, _ = attached(2)
    optimizer = adam(model)
    learn(model, range(3), optimizer)
    saved = copy.deepcopy((model.state_dict(), dfa.state_dict(), optimizer.state_dict()))
    learn(model, range(3, 6), optimizer)
    other, resumed, _ = attached(2)
    again = adam(other)
    for part, state in zip((other, resumed, again), saved, strict=True):
        part.load_state_dict(state)
    learn(other, range(3, 6), again)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_measuring_leaves_the_head_alone() -> None:
    model, dfa, _ = attached(2)
    learn(model, range(2), adam(model))
    before = model.head.weight.detach().clone()
    with dfa.measure_alignment():
        loss_of(model, 7).backward()
    assert torch.equal(model.head.weight, before)


def test_a_fused_optimiser_is_refused() -> None:
    model, _, _ = attached(2)
    fuse_optimizer(model, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    with pytest.raises(MatchError, match="rule low_rank needs the optimiser's step"):
        loss_of(model, 0).backward()


def test_the_heads_optimiser_steps_first() -> None:
    """Both ways out that the message names are followed."""
    model, _, start_VK = attached(2)
    blocks = torch.optim.SGD(model.blocks.parameters(), lr=0.1)
    head = torch.optim.SGD(model.head.parameters(), lr=0.1)
    learn(model, range(1), head)
    drift_VK = model.head.weight.detach() - start_VK
    assert int(torch.linalg.matrix_rank(drift_VK, tol=1e-10)) == 2
    with pytest.raises(MatchError, match=r"got one without it; step the head's optimiser first, or freeze the head"):
        learn(model, range(1, 2), blocks)
    model.head.weight.requires_grad_(False)
    learn(model, range(2, 3), blocks)


def test_its_cost_is_told() -> None:
    model, dfa, _ = attached(2)
    loss_of(model, 0).backward()
    # 2 (9 + 12) / (9 * 12)
    assert "electronic rank 2 that the head learns within (38.9% of the exact product)" in repr(dfa)
    model, dfa, _ = attached(0)
    loss_of(model, 0).backward()
    assert "no electronic part" in repr(dfa)
