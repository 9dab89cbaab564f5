"""Triton's kernel of drawn entries in the interpreter: run by `test_triton` in a process with TRITON_INTERPRET=1."""

import os

import pytest
import torch

from odfa.draws import Draws
from odfa.encode import Ternary, accelerated, quantise
from odfa.encode.accelerated import draw_entries_on_accelerator

assert os.environ.get("TRITON_INTERPRET") == "1", "expected TRITON_INTERPRET=1; run test_triton.py"
BLOCK = 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(accelerated, "_BLOCK", BLOCK)


def rows(num_rows, num_inputs, kind="normal"):
    e_ND = torch.randn(num_rows, num_inputs, generator=torch.Generator().manual_seed(num_inputs))
    if kind == "peaked":
        e_ND = (4 * e_ND).softmax(1)
        e_ND[:, num_inputs // 2] -= 1
    if kind == "sparse":
        e_ND = e_ND * (e_ND.abs() > 1.3)
    if kind == "zeros":
        e_ND[::2] = 0
    if kind == "positive":
        e_ND = e_ND.abs()
    return e_ND


def drawn(e_ND, repeats, draws):
    index_NF = torch.full((len(e_ND), 2 * repeats), -7)
    gain_NF = torch.full((len(e_ND), 2 * repeats), torch.nan)
    draw_entries_on_accelerator(e_ND, draws.uniform(len(e_ND), 2), index_NF, gain_NF)
    return index_NF, gain_NF


def check(e_ND, repeats, draws):
    """Gains to rounding; each entry is above zero and holds its draw, to the rounding of cumulative sums in float32."""
    (index_NF, gain_NF), uniform_N2 = drawn(e_ND, repeats, draws), draws.uniform(len(e_ND), 2).double()
    for side, sign in ((0, 1.0), (1, -1.0)):
        e_plus_ND = (sign * e_ND.double()).clamp(min=0)
        total_N1 = e_plus_ND.sum(1, keepdim=True)
        torch.testing.assert_close(
            gain_NF[:, side::2].double(), (sign * total_N1 / repeats).expand(-1, repeats), rtol=1e-6, atol=0
        )
        index_NR, is_lit_N = index_NF[:, side::2], total_N1[:, 0] > 0
        assert not index_NR[~is_lit_N].any()
        assert (e_plus_ND.gather(1, index_NR)[is_lit_N] > 0).all()
        to_NR = e_plus_ND.cumsum(1).gather(1, index_NR)
        from_NR = to_NR - e_plus_ND.gather(1, index_NR)
        wanted_NR = (torch.arange(repeats) + uniform_N2[:, side, None]) / repeats * total_N1
        slack_N1 = 1e-6 * total_N1
        assert ((from_NR - slack_N1 <= wanted_NR) & (wanted_NR <= to_NR + slack_N1)).all()


WIDTHS = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1, 100]


@pytest.mark.parametrize("kind", ["normal", "peaked", "sparse", "zeros", "positive"])
@pytest.mark.parametrize("num_inputs", WIDTHS)
def test_every_entry(num_inputs, kind):
    for repeats in (1, 5):
        check(rows(2, num_inputs, kind), repeats, Draws(repeats))


def test_many_draws():
    check(rows(1, 40), 200, Draws(0))


def test_draws_are_those_of_torch():
    """Where no draw is within rounding of the border of two entries, as here, the entries are the same."""
    e_ND = rows(5, 200)
    index_NF, gain_NF = drawn(e_ND, 3, Draws(8))
    by_torch_NF, gains_NF = quantise.drawn_entries(e_ND, repeats=3, draws=Draws(8))
    assert torch.equal(index_NF, by_torch_NF)
    torch.testing.assert_close(gain_NF, gains_NF)


def test_the_ends_of_the_range():
    """Draws at 0 and just below 1: the first and the last entry above zero, whatever the sums round to."""
    e_ND = torch.full((2, 50), 0.1)
    e_ND[:, :3] = e_ND[:, -3:] = 0
    index_NF, gain_NF = torch.full((2, 2), -7), torch.empty(2, 2)
    uniform_N2 = torch.tensor([[0.0, 0.5], [1 - 2.0**-24, 0.5]])
    draw_entries_on_accelerator(e_ND, uniform_N2, index_NF, gain_NF)
    assert index_NF.tolist() == [[3, 0], [46, 0]]


def test_strides():
    for e_ND in (rows(6, 90)[::2, ::3], rows(90, 3).T, rows(1, 90).expand(3, -1), rows(0, 5)):
        check(e_ND, 2, Draws(1))


def test_the_encoder(monkeypatch):
    e_ND = rows(5, 200)
    expected = Ternary("sampled", repeats=2).entries(e_ND)
    expected_frames = Ternary("sampled", repeats=2).encode(e_ND)
    monkeypatch.setattr(quantise, "triton_runs_on", lambda device: True)
    found, frames = Ternary("sampled", repeats=2).entries(e_ND), Ternary("sampled", repeats=2).encode(e_ND)
    assert torch.equal(found.index_NF, expected.index_NF)
    assert torch.equal(frames.bits_NFD, expected_frames.bits_NFD)
    wide = Ternary("sampled").entries(e_ND.double())
    assert wide.gain_NF.dtype == torch.float64
