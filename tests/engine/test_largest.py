"""The largest entries of an error, multiplied exactly beside a part of low rank."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead, ElectronicOnly, ExactHead
from odfa.errors import ConfigError
from odfa.feedback import LowRank, of_largest
from odfa.flow import ErrorSignal
from odfa.keys import torch_generator
from odfa.project import Gaussian
from odfa.settings import SettingError

OUTPUTS, WIDTH = 12, 8


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch_generator(7, seed), dtype=torch.float64)


def naive(e_ND: Tensor, count: int, matrix_DK: Tensor, fit_DK: Tensor) -> Tensor:
    p_NK = torch.zeros(len(e_ND), matrix_DK.shape[1], dtype=torch.float64)
    for n, e_D in enumerate(e_ND):
        for i in sorted(range(len(e_D)), key=lambda i: -abs(e_D[i].item()))[:count]:
            p_NK[n] += e_D[i] * (matrix_DK[i] - fit_DK[i])
    return p_NK


@settings(deadline=None)
@given(count=st.integers(1, OUTPUTS), rank=st.integers(0, 4), seed=st.integers(0, 100))
def test_entry_by_entry(count: int, rank: int, seed: int) -> None:
    e_ND, matrix_DK, low_rank = normal(5, OUTPUTS, seed=seed), normal(OUTPUTS, WIDTH, seed=seed + 1), LowRank(rank)
    low_rank.fit(matrix_DK, seed)
    fit_DK = low_rank.u_Dr @ low_rank.v_rK if rank else torch.zeros_like(matrix_DK)
    found_NK = of_largest(e_ND, count, matrix_DK, low_rank)
    torch.testing.assert_close(found_NK, naive(e_ND, count, matrix_DK, fit_DK))
    if count == OUTPUTS:  # nothing is left to approximate
        torch.testing.assert_close(found_NK + e_ND @ fit_DK, e_ND @ matrix_DK)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Linear(WIDTH, OUTPUTS, bias=False))


def sparse(count: int) -> Tensor:
    """Errors of so many non-zeros a row."""
    e_ND = torch.zeros(6, OUTPUTS)
    for n in range(6):
        e_ND[n, torch.randperm(OUTPUTS, generator=torch_generator(n))[:count]] = normal(count, seed=n).float()
    return e_ND


@pytest.mark.parametrize("rule", [AlignedHead(rank=0, largest=3), AlignedHead(rank=2, largest=3, every=1),
                                  ElectronicOnly(rank=2, largest=3, every=1)], ids=str)  # fmt: skip
def test_errors_of_so_few_entries_meet_the_whole_head(rule: AlignedHead | ElectronicOnly) -> None:
    model, e_ND = net(), sparse(3)
    feedback = rule.start(Gaussian(), model, model[3])
    for step in range(3):
        with torch.no_grad():
            model[3].weight += 0.3 * normal(OUTPUTS, WIDTH, seed=step).float()
        (q_NK,) = feedback.signals(ErrorSignal(e_ND=e_ND, tap="logits", lead=(6,)), [])
        torch.testing.assert_close(q_NK, e_ND @ model[3].weight)


def test_with_nearly_all_entries_the_blocks_learn_as_by_the_exact_product() -> None:
    gradients = []
    for rule in (AlignedHead(scale=1.0, rank=1, largest=OUTPUTS - 1), ExactHead(scale=1.0)):
        model = net()
        DFA(model, rule=rule, projection=Gaussian(seed=1))
        with torch.no_grad():
            model[3].weight += 0.05 * normal(OUTPUTS, WIDTH, seed=9).float()
        logits = model(normal(4, WIDTH, seed=3).float())
        nn.functional.cross_entropy(logits, torch.tensor([0, 3, 5, 5])).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model[:3].parameters()]))
    cosine = torch.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.9999


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(SettingError, match="largest: expected 0 to"):
        AlignedHead(largest=-1)
    with pytest.raises(ConfigError, match=f"expects 0 to {OUTPUTS - 1} .*, got {OUTPUTS}"):
        DFA(net(), rule=AlignedHead(largest=OUTPUTS))


def test_what_the_exact_entries_cost_is_said() -> None:
    model = net()
    dfa = DFA(model, rule=AlignedHead(rank=2, largest=3))
    model(normal(4, WIDTH).float()).square().sum().backward()
    # (2 (12 + 8) + 3 (8 + 2)) / (12 * 8)
    assert "electronic rank 2 and the 3 largest errors (72.9% of the exact product)" in repr(dfa)
    shape = {"num_outputs": 100, "width": 64}
    beside = "all but light, with an electronic correction"
    exact = "of the 4 largest entries of each error, exactly"
    assert (
        AlignedHead(largest=4).electronic("all but light", **shape) == f"{beside} of rank 8 every 20 steps and {exact}"
    )
    assert AlignedHead(largest=4, rank=0).electronic("all but light", **shape) == f"{beside} {exact}"
