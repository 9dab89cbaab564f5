"""The four quantisers against naive float64 references, and the laws they promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odfa.draws import Draws
from odfa.encode import Ternary, base, quantise
from odfa.keys import torch_generator

ALL = ["stochastic", "best_cosine", "relative_max", "sampled"]
rows = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.floats(-8, 8, width=32).map(lambda x: np.float32(0.0 if abs(x) < 1e-3 else x)),
)


def softmax_error(num_samples: int, num_classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch_generator(seed)
    e_ND = torch.randn(num_samples, num_classes, generator=generator).softmax(1)
    target_N = torch.randint(num_classes, (num_samples,), generator=generator)
    return e_ND - torch.nn.functional.one_hot(target_N, num_classes)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("quantiser", ["stochastic", "sampled"])
def test_random_quantisers_are_unbiased(quantiser, repeats):
    e_D = torch.tensor([0.31, -0.7, 0.0, 0.05, -0.02, 0.3, 0.06], dtype=torch.float64)
    values_ND = Ternary(quantiser, repeats=repeats, seed=3).encode(e_D.expand(20_000, -1)).values()
    z_D = (values_ND.mean(0) - e_D) / (values_ND.std(0) / math.sqrt(len(values_ND))).clamp_min(1e-12)
    assert z_D[2] == 0
    assert z_D.abs().max() < 4
    assert values_ND.std(0)[[0, 3, 4, 5, 6]].min() > 0.01


@pytest.mark.parametrize(("quantiser", "least", "most"), [("stochastic", 3.8, 4.2), ("sampled", 6, 16)])
def test_repeats_divide_the_variance(quantiser, least, most):
    """Independent draws divide it by their number, draws spread evenly by more."""
    e_ND = softmax_error(1, 12).expand(20_000, -1)
    once, four = (Ternary(quantiser, repeats=r).encode(e_ND).values().var(0).sum() for r in (1, 4))
    assert least < once / four < most


@given(st.integers(1, 9), st.integers(2, 12), st.integers(0, 2**32))
def test_an_entry_is_drawn_as_often_as_its_share_says(repeats, width, seed):
    """Systematic sampling: floor or ceil of R times its share, for every entry of every row."""
    e_ND = softmax_error(5, width, seed=seed)
    bits_NFD, _ = quantise.sampled(e_ND, repeats=repeats, draws=Draws(seed))
    for sign, offset in ((1, 0), (-1, 1)):
        part_ND = (sign * e_ND).clamp(min=0)
        expected_ND = repeats * part_ND / part_ND.sum(1, keepdim=True)
        assert (bits_NFD[:, offset::2].sum(1) - expected_ND).abs().max() < 1 + 1e-5


def test_stochastic_element_by_element():
    e_ND = softmax_error(6, 5)
    bits_NFD, gain_NF = quantise.stochastic(e_ND, repeats=1, draws=Draws(7))
    uniform_ND = Draws(7).uniform(6, 5).double()
    for n in range(6):
        peak = max(abs(x) for x in e_ND[n].tolist())
        assert gain_NF[n].tolist() == [peak, -peak]
        for d, x in enumerate(e_ND[n].tolist()):
            kept = uniform_ND[n, d] < abs(x) / peak
            assert bits_NFD[n, :, d].tolist() == [kept and x > 0, kept and x < 0]


@settings(deadline=None)
@given(rows)
def test_best_cosine_beats_every_threshold(e):
    frames = Ternary("best_cosine").encode(torch.from_numpy(e))
    for e_D, t_D in zip(e.astype(np.float64), frames.values().double().numpy(), strict=True):
        if not e_D.any():
            assert not t_D.any()
            continue
        codes = [np.sign(e_D) * (np.abs(e_D) >= cut) for cut in np.abs(e_D[e_D != 0])]
        best = max(e_D @ c / np.linalg.norm(c) for c in codes)
        assert e_D @ t_D / np.linalg.norm(t_D) >= best * (1 - 1e-6)


@settings(deadline=None)
@given(rows, st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_relative_max_element_by_element(e, threshold):
    frames = Ternary("relative_max", threshold=threshold).encode(torch.from_numpy(e))
    for n, e_D in enumerate(e):
        kept_D = np.abs(e_D) > np.float32(threshold) * np.abs(e_D).max()
        assert (frames.bits_NFD[n].numpy() == [kept_D & (e_D > 0), kept_D & (e_D < 0)]).all()
        scale = np.abs(e_D[kept_D].astype(np.float64)).mean() if kept_D.any() else 0.0
        assert frames.gain_NF[n].tolist() == pytest.approx([scale, -scale], rel=1e-6)


@settings(deadline=None)
@given(rows, st.sampled_from(["best_cosine", "relative_max"]))
def test_deterministic_scales_are_least_squares(e, quantiser):
    values_ND = Ternary(quantiser).encode(torch.from_numpy(e)).values().double()
    residual_ND = torch.from_numpy(e).double() - values_ND
    assert (residual_ND * values_ND).sum(1).abs().max() < 1e-4


def test_gaussian_rows_reach_the_known_optimum():
    e_ND = torch.randn(200, 4096, generator=torch_generator(0))
    frames = Ternary("best_cosine").encode(e_ND)
    assert torch.cosine_similarity(e_ND, frames.values()).mean() == pytest.approx(0.900, abs=0.001)
    assert frames.density == pytest.approx(0.54, abs=0.005)
    kept_ND = frames.bits_NFD.any(1)
    threshold_N = torch.where(kept_ND, e_ND.abs(), torch.inf).amin(1)
    assert threshold_N.mean() == pytest.approx(0.612, abs=0.01)


def test_sampled_lights_one_mirror_per_pattern_on_the_right_side():
    e_ND = softmax_error(300, 40)
    frames = Ternary("sampled", repeats=3).encode(e_ND)
    assert (frames.bits_NFD.sum(2) == 1).all()
    assert not (frames.bits_NFD[:, 0::2] & (e_ND <= 0)[:, None]).any()
    assert not (frames.bits_NFD[:, 1::2] & (e_ND >= 0)[:, None]).any()
    torch.testing.assert_close(frames.gain_NF.sum(1), e_ND.sum(1), atol=1e-6, rtol=0)


def test_sampled_never_draws_what_has_no_probability(monkeypatch):
    # the edge of the distribution
    monkeypatch.setattr(quantise.Draws, "uniform", lambda self, rows, columns, **_: torch.zeros(rows, columns))
    frames = Ternary("sampled").encode(torch.tensor([[0.0, 0.3, 0.7, -1.0]]))
    assert frames.bits_NFD[0].tolist() == [[False, True, False, False], [False, False, False, True]]


def test_sampled_follows_the_distribution():
    e_D = torch.tensor([0.1, 0.2, 0.0, 0.7, -1.0])
    drawn_D = Ternary("sampled").encode(e_D.expand(40_000, -1)).bits_NFD[:, 0].double().mean(0)
    expected_D = torch.tensor([0.1, 0.2, 0.0, 0.7, 0.0], dtype=torch.float64)
    assert drawn_D[2] == 0
    assert (drawn_D - expected_D).abs().max() < 4 * 0.5 / 200


@settings(deadline=None)
@given(rows, st.sampled_from(ALL), st.integers(-20, 20), st.sampled_from([torch.float32, torch.float64]))
def test_scale_equivariance_is_exact_for_powers_of_two(e, quantiser, power, dtype):
    e_ND = torch.from_numpy(e).to(dtype)
    plain, scaled = (Ternary(quantiser, seed=5).encode(e_ND * c) for c in (1.0, 2.0**power))
    assert torch.equal(plain.bits_NFD, scaled.bits_NFD)
    assert torch.equal(plain.gain_NF * 2.0**power, scaled.gain_NF)
    assert plain.gain_NF.dtype == dtype
    plain.check()


@pytest.mark.parametrize("quantiser", ALL)
def test_blocks_do_not_change_the_code(quantiser, monkeypatch):
    e_ND = softmax_error(50, 32)
    whole = Ternary(quantiser).encode(e_ND)
    monkeypatch.setattr(base, "_BLOCK", 7 * 32)
    blocks = Ternary(quantiser).encode(e_ND)
    assert torch.equal(whole.bits_NFD, blocks.bits_NFD)
    assert torch.equal(whole.gain_NF, blocks.gain_NF)


@pytest.mark.parametrize("quantiser", ALL)
@pytest.mark.parametrize("shape", [(0, 4), (3, 1), (2, 70_000)])
def test_odd_shapes_and_dark_rows(quantiser, shape):
    frames = Ternary(quantiser).encode(torch.zeros(shape))
    assert frames.bits_NFD.shape == (shape[0], 2, shape[1])
    assert not frames.bits_NFD.any()
    assert not frames.gain_NF.any()


@pytest.mark.parametrize("quantiser", ALL)
def test_one_signed_rows(quantiser):
    frames = Ternary(quantiser).encode(torch.tensor([[3.0, 0.0, 3.0], [0.0, -2.0, 0.0]]))
    assert not frames.bits_NFD[0, 1].any()
    assert not frames.bits_NFD[1, 0].any()
    assert frames.values()[1].tolist() == [0, -2, 0]
