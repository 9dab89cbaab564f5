"""Drawn entries of an error, which meet the whole matrix beside a part of low rank."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from odfa.draws import Draws
from odfa.encode.quantise import drawn_entries
from odfa.engine import DFA, AlignedHead, ElectronicOnly
from odfa.feedback import LowRank, of_drawn
from odfa.flow import ErrorSignal
from odfa.keys import torch_generator
from odfa.project import Gaussian
from odfa.settings import SettingError

OUTPUTS, WIDTH = 12, 8


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch_generator(7, seed), dtype=torch.float64)


def errors(num_rows: int) -> Tensor:
    """Softmax minus one-hot."""
    e_ND = normal(num_rows, OUTPUTS, seed=5).softmax(1)
    e_ND[torch.arange(num_rows), torch.arange(num_rows) % OUTPUTS] -= 1
    return e_ND


@settings(deadline=None)
@given(draws=st.integers(1, 9), rank=st.integers(0, 4), seed=st.integers(0, 100))
def test_entry_by_entry(draws: int, rank: int, seed: int) -> None:
    e_ND, matrix_DK, low_rank = errors(5), normal(OUTPUTS, WIDTH, seed=seed + 1), LowRank(rank)
    low_rank.fit(matrix_DK, seed)
    fit_DK = low_rank.u_Dr @ low_rank.v_rK if rank else torch.zeros_like(matrix_DK)
    index_NF, gain_NF = drawn_entries(e_ND, repeats=draws, draws=Draws(seed))
    expected_NK = torch.zeros(5, WIDTH, dtype=torch.float64)
    for n in range(5):
        for i, gain in zip(index_NF[n].tolist(), gain_NF[n].tolist(), strict=True):
            expected_NK[n] += gain * (matrix_DK[i] - fit_DK[i])
    found_NK = of_drawn(e_ND, draws, matrix_DK, low_rank, Draws(seed))
    torch.testing.assert_close(found_NK, expected_NK)


def test_it_is_right_on_the_average() -> None:
    e_1D, matrix_DK, low_rank, repeats = errors(1), normal(OUTPUTS, WIDTH), LowRank(2), 20_000
    low_rank.fit(matrix_DK, 0)
    e_ND = e_1D.expand(repeats, -1)
    q_NK = low_rank(e_ND) + of_drawn(e_ND, 2, matrix_DK, low_rank, Draws(3))
    exact_1K = e_1D @ matrix_DK
    assert ((q_NK.mean(0) - exact_1K[0]).abs() < 5 * q_NK.std(0) / repeats**0.5).all()
    assert (low_rank(e_1D) - exact_1K).norm() > 0.1 * exact_1K.norm()  # which low rank alone is not


def net() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Linear(WIDTH, OUTPUTS, bias=False))


def one_of_each_sign() -> Tensor:
    """Rows of one positive and one negative entry: every draw finds them."""
    e_ND = torch.zeros(6, OUTPUTS)
    for n in range(6):
        plus, minus = torch.randperm(OUTPUTS, generator=torch_generator(n))[:2].tolist()
        e_ND[n, plus], e_ND[n, minus] = 0.3 + n, -0.7
    return e_ND


@pytest.mark.parametrize("rule", [AlignedHead(rank=0, drawn=3), AlignedHead(rank=2, drawn=1, every=1),
                                  ElectronicOnly(rank=2, drawn=3, every=1)], ids=str)  # fmt: skip
def test_errors_of_one_entry_of_each_sign_meet_the_whole_head(rule: AlignedHead | ElectronicOnly) -> None:
    model, e_ND = net(), one_of_each_sign()
    feedback = rule.start(Gaussian(), model, model[3])
    for step in range(3):
        with torch.no_grad():
            model[3].weight += 0.3 * normal(OUTPUTS, WIDTH, seed=step).float()
        (q_NK,) = feedback.signals(ErrorSignal(e_ND=e_ND, tap="logits", lead=(6,)), [])
        torch.testing.assert_close(q_NK, e_ND @ model[3].weight, rtol=1e-4, atol=1e-5)


def test_a_resumed_rule_draws_what_it_would_have() -> None:
    rule, e_ND = AlignedHead(rank=1, drawn=2, every=2), errors(4).float()
    model, other = net(), net()
    feedback, resumed = (rule.start(Gaussian(), each, each[3]) for each in (model, other))
    error = ErrorSignal(e_ND=e_ND, tap="logits", lead=(4,))
    for each in (model, other):
        with torch.no_grad():
            each[3].weight += 0.3 * normal(OUTPUTS, WIDTH).float()
    feedback.signals(error, [])
    resumed.load_state_dict(feedback.state_dict())
    for _ in range(3):
        assert torch.equal(feedback.signals(error, [])[0], resumed.signals(error, [])[0])


def test_fewer_than_no_draws_are_refused() -> None:
    with pytest.raises(SettingError, match="drawn: expected 0 to"):
        AlignedHead(drawn=-1)


def test_what_the_draws_cost_is_said() -> None:
    model = net()
    dfa = DFA(model, rule=AlignedHead(rank=2, drawn=3))
    model(normal(4, WIDTH).float()).square().sum().backward()
    # (2 (12 + 8) + 6 (8 + 2)) / (12 * 8)
    assert "electronic rank 2 and 3 drawn entries of each sign (104.2% of the exact product)" in repr(dfa)
    shape = {"num_outputs": 100, "width": 64}
    beside, drawn = "all but light, with an electronic correction", "of 4 drawn entries of each sign"
    both = AlignedHead(drawn=4).electronic("all but light", **shape)
    assert both == f"{beside} of rank 8 every 20 steps and {drawn}"
    assert AlignedHead(drawn=4, rank=0).electronic("all but light", **shape) == f"{beside} {drawn}"
