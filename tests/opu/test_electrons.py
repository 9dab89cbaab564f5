"""Photo-electrons and counts: the laws against exact ones, and the same counts by every way to make them."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.draws import reference
from tests.structured.test_triton import needs_triton, run

from odfa.draws import Draws, draws
from odfa.opu import Sensor
from odfa.opu.twin.electrons import arithmetic, counting
from odfa.opu.twin.electrons.arithmetic import GAUSSIAN_FROM_E, QUANTILE_FROM_E, TERMS
from odfa.opu.twin.sensor import detect

SHAPES = [(1, 1), (3, 5), (2, 255), (7, 256), (5, 257), (300, 2), (3, 1001)]
MEANS = [0.0, 5.0, 30.0, 99.0, 3000.0, 2e4]
"""Of exponential intensities: all dark, mostly below a border, around both, bright, clipped."""
CAMERAS = {
    f"{bits} bits, {name}": Sensor(bits=bits, **noise)
    for bits in (1, 8, 12, 16, None)
    for name, noise in {
        "both noises": {},
        "shot noise": {"read_noise_e": None},
        "read noise": {"shot_noise": False},
        "no noise": {"shot_noise": False, "read_noise_e": None},
    }.items()
}
KEY, FIRST = (1, 2), 2**32 - 2
ELECTRONS = Sensor(bits=16, full_well_e=65_535.0, read_noise_e=None)
"""Counts are electrons."""
needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")


def speckle(shape: tuple[int, int], mean_e: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    drawn = np.random.default_rng(shape[1]).exponential(size=shape) * mean_e
    return torch.from_numpy(drawn).to(dtype)


def by_torch(monkeypatch: pytest.MonkeyPatch, *, pick: bool) -> None:
    for module in (draws, counting):
        monkeypatch.setattr(module, "compiler_on", lambda _device: "torch")
    monkeypatch.setattr(arithmetic, "may_pick", lambda _device: pick)


def away_from_poisson(probability_K: np.ndarray, mean_e: float) -> float:
    """Total variation distance."""
    return 0.5 * np.abs(probability_K - stats.poisson.pmf(np.arange(len(probability_K)), mean_e)).sum()


@pytest.mark.parametrize("mean_e", [10.0, 10.4, 12.7, 20.0, 33.3, 50.0, 99.9])
def test_quantiles_of_normal_numbers_follow_the_poisson_law(mean_e):
    w_X = np.linspace(-6.7, 6.7, 1_000_001)
    mass_X = stats.norm.pdf(w_X)
    drawn_X = arithmetic.quantile(torch.tensor(mean_e), torch.from_numpy(w_X).float()).long().numpy()
    assert np.all(np.diff(drawn_X) >= 0)
    found_K = np.bincount(drawn_X, weights=mass_X / mass_X.sum(), minlength=300)
    assert away_from_poisson(found_K, mean_e) < 2e-4
    moment_K = np.arange(len(found_K))
    assert found_K @ moment_K == pytest.approx(mean_e, rel=1e-5)
    assert found_K @ (moment_K - mean_e) ** 2 == pytest.approx(mean_e, rel=4e-4)


@pytest.mark.parametrize("mean_e", [0.0, 1e-3, 0.2, 1.0, 3.3, 7.0, 9.9999])
def test_inversion_follows_the_poisson_law(mean_e):
    u_X = (torch.arange(2**20) + 0.5) / 2**20
    drawn_X = arithmetic.inverted(torch.full_like(u_X, mean_e), u_X).long()
    assert bool((drawn_X.diff() >= 0).all())
    found_K = np.bincount(drawn_X.numpy(), minlength=60) / len(u_X)
    assert away_from_poisson(found_K, mean_e) < 2e-5


def test_sums_stop_to_grow_before_the_last_term_and_the_largest_number_is_a_likely_one():
    mean_X = torch.linspace(0, QUANTILE_FROM_E, 100_001)[:-1]
    drawn_X = arithmetic.inverted(mean_X, torch.full_like(mean_X, 1 - 2.0**-24))
    assert drawn_X.max() < TERMS - 2
    likely_X = torch.from_numpy(stats.poisson.isf(1e-9, mean_X.double().numpy()))
    assert bool((drawn_X.double() <= likely_X + 1).all())


@pytest.mark.parametrize("mean_e", [0.0, 0.5, 9.99, 10.0, 45.0, 99.99, 100.0, 4000.0])
def test_electrons_of_single_pixels_are_those_of_the_documented_words(mean_e):
    bright, faint, read_e = Draws(5), Draws(6), 2.0
    mean_RC = torch.full((3, 6), mean_e)
    found_RC = arithmetic.electrons(mean_RC, read_e, True, bright, faint, FIRST)
    for r in range(3):
        for c in range(6):
            w = reference.normal(bright.key, FIRST + r, c)
            own = 4 * c  # a counter of its own
            read, u = reference.normal(faint.key, FIRST + r, own), reference.uniform(faint.key, FIRST + r, own + 2)
            if mean_e >= GAUSSIAN_FROM_E:
                expected = mean_e + math.sqrt(mean_e + read_e**2) * w
            elif mean_e >= QUANTILE_FROM_E:
                expected = float(arithmetic.quantile(torch.tensor(mean_e), torch.tensor(w))) + read_e * read
            else:
                expected = stats.poisson.ppf(u, mean_e) + read_e * read if mean_e else read_e * read
            assert found_RC[r, c].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("mean_e", [0.3, 9.9, 10.1, 99.0, 101.0])
def test_counts_follow_the_poisson_law(mean_e):
    counts_N = detect(torch.full((100, 4001), mean_e), ELECTRONS, (3,)).flatten().numpy()
    found_K = np.bincount(counts_N)
    expected_K = stats.poisson.pmf(np.arange(len(found_K)), mean_e) * len(counts_N)
    is_often = expected_K > 20
    off = ((found_K - expected_K)[is_often] ** 2 / expected_K[is_often]).sum()
    # N(lambda, lambda) is no Poisson law: its skewness of 0.1 shows among 400,000 pixels
    assert off < stats.chi2.isf(1e-4, is_often.sum()) or mean_e >= GAUSSIAN_FROM_E


@pytest.mark.parametrize("mean_e", [0.0, 4.0, 9.9, 10.1, 60.0, 99.0, 150.0])
def test_both_noises_of_a_pixel_and_those_of_neighbours_are_independent(mean_e):
    read_e, size = 5.0, 600_000
    drawn_RC = arithmetic.electrons(torch.full((300, 2000), mean_e), read_e, True, Draws(1), Draws(2), 0).double()
    noise_RC, variance = drawn_RC - mean_e, mean_e + read_e**2
    assert noise_RC.mean() == pytest.approx(0, abs=4 * math.sqrt(variance / size))
    assert noise_RC.square().mean() == pytest.approx(variance, rel=4 * math.sqrt(2 / size))
    skewness = (noise_RC.pow(3).mean() / variance**1.5).item()
    expected = mean_e / variance**1.5 if mean_e < GAUSSIAN_FROM_E else 0.0
    assert skewness == pytest.approx(expected, abs=4 * math.sqrt(15 / size))
    for one, other in ((noise_RC[:, 1:], noise_RC[:, :-1]), (noise_RC[1:], noise_RC[:-1])):
        assert (one * other).mean() / variance == pytest.approx(0, abs=4 / math.sqrt(size))


@pytest.mark.parametrize("sensor", CAMERAS.values(), ids=CAMERAS)
@pytest.mark.parametrize("pick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_torch_makes_the_counts_of_compiled_code(sensor, pick, monkeypatch):
    types = (torch.float32, torch.float64)
    cases = [speckle(shape, mean_e, dtype) for shape in SHAPES for mean_e in MEANS for dtype in types]
    compiled = [detect(mean_RC, sensor, KEY, FIRST) for mean_RC in cases]
    by_torch(monkeypatch, pick=pick)
    for mean_RC, counts_RC in zip(cases, compiled, strict=True):
        before_RC = mean_RC.clone()
        found_RC = detect(mean_RC, sensor, KEY, FIRST)
        assert found_RC.dtype == sensor.count_dtype
        assert torch.equal(found_RC, counts_RC)
        assert torch.equal(mean_RC, before_RC)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 700), st.floats(0.1, 3000), st.integers(0, 2**62), st.integers(0, 2**40))
def test_any_shape_and_key(rows, columns, mean_e, key, first_row):
    mean_RC = speckle((rows, columns), mean_e)
    counts_RC = detect(mean_RC, Sensor(), (key,), first_row)
    with pytest.MonkeyPatch.context() as patch:
        by_torch(patch, pick=True)
        assert torch.equal(detect(mean_RC, Sensor(), (key,), first_row), counts_RC)


def test_many_faint_pixels_are_drawn_in_several_parts(monkeypatch):
    mean_RC = speckle((30, 997), 20.0)
    counts_RC = detect(mean_RC, Sensor(), KEY)
    by_torch(monkeypatch, pick=True)
    assert torch.equal(detect(mean_RC, Sensor(), KEY), counts_RC)


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_counts_do_not_depend_on_how_rows_are_shared_among_calls(cut):
    mean_RC = speckle((7, 333), 500.0)
    parts = [detect(mean_RC[:cut], Sensor(), KEY, FIRST), detect(mean_RC[cut:], Sensor(), KEY, FIRST + cut)]
    assert torch.equal(torch.cat(parts), detect(mean_RC, Sensor(), KEY, FIRST))


def test_threads_and_parts_change_nothing(monkeypatch):
    mean_RC = speckle((7, 333), 500.0)
    counts_RC, threads = detect(mean_RC, Sensor(), KEY), torch.get_num_threads()
    monkeypatch.setattr(draws, "_WORTH_A_THREAD", 1)
    try:
        torch.set_num_threads(3)
        assert torch.equal(detect(mean_RC, Sensor(), KEY), counts_RC)
    finally:
        torch.set_num_threads(threads)
    by_torch(monkeypatch, pick=True)
    monkeypatch.setattr(counting, "_NUMBERS_A_CALL", 700)
    assert torch.equal(detect(mean_RC, Sensor(), KEY), counts_RC)


def test_strides_and_empty_frames():
    mean_CR = speckle((333, 7), 500.0)
    assert torch.equal(detect(mean_CR.T, Sensor(), KEY), detect(mean_CR.T.contiguous(), Sensor(), KEY))
    assert detect(torch.empty(0, 5), Sensor(), KEY).shape == (0, 5)
    assert detect(torch.empty(5, 0), Sensor(), KEY).shape == (5, 0)


@pytest.mark.parametrize("sensor", CAMERAS.values(), ids=CAMERAS)
def test_shapes_are_told_without_numbers(sensor):
    found_RC = detect(torch.empty(3, 5, device="meta"), sensor, KEY)
    assert found_RC.is_meta
    assert found_RC.dtype == sensor.count_dtype


@needs_triton
@pytest.mark.timeout(300)
def test_elements():
    laws = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/opu/triton_elements.py")
    assert "passed" in run(laws, TRITON_INTERPRET="1")


@needs_triton
def test_the_kernel_compiles_for_a_gpu(tmp_path):
    words = ("tests/opu/triton_compiled.py",)
    assert "compiled" in run(words, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
