"""Balanced ternary digits, and the Hadamard transform before patterns: laws, and naive references in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa.encode import BestCosineSettings, BitPlanes, Sign, Spread, SpreadSettings, Ternary, TritPlanes, base
from odfa.encode.spread import hadamard, signs, spread_rows
from odfa.engine.rules.head import measure
from odfa.errors import CheckpointError, ConfigError
from odfa.keys import torch_generator
from odfa.opu import Twin
from odfa.project import Gaussian, Identity, Optical
from odfa.project.calibrating import calibrate
from odfa.project.encoded import Encoded
from odfa.settings import SettingError

shapes = st.tuples(st.integers(0, 5), st.integers(1, 40), st.integers(0, 1000))


def rows(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    num_rows, width, seed = shape
    e_ND = torch.randn(num_rows, width, generator=torch_generator(seed), dtype=dtype)
    return e_ND * (torch.rand(num_rows, width, generator=torch_generator(seed, 1)) < 0.7)


def sparse_errors(num_rows: int, width: int) -> torch.Tensor:
    """Softmax minus one-hot, as over a vocabulary."""
    logits_ND = 3 * torch.randn(num_rows, width, generator=torch_generator(width))
    e_ND = logits_ND.softmax(1)
    e_ND[torch.arange(num_rows), torch.arange(num_rows) % width] -= 1
    return e_ND


def naive_transform(num_inputs: int) -> torch.Tensor:
    """T_DE entry by entry: Sylvester's matrix has (-1)^(number of places where both indices have a one)."""
    order = 2 ** math.ceil(math.log2(num_inputs))
    entries = [[(-1.0) ** (d & e).bit_count() for e in range(order)] for d in range(num_inputs)]
    return signs(num_inputs).double()[:, None] * torch.tensor(entries, dtype=torch.float64) / math.sqrt(order)


@settings(deadline=None)
@given(shape=shapes, trits=st.integers(1, 6), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_digits_stand_for_one_of_the_two_levels_beside_each_entry(shape, trits, dtype):
    e_ND, encoder = rows(shape, dtype), TritPlanes(trits, seed=shape[2])
    frames = encoder.encode(e_ND)
    frames.check()
    assert frames.bits_NFD.shape == (shape[0], encoder.patterns_per_sample, shape[1])
    assert not (frames.bits_NFD[:, 0::2] & frames.bits_NFD[:, 1::2]).any()
    step_N1 = 2 * e_ND.double().abs().amax(1, keepdim=True) / (3**trits - 1)
    level_ND = frames.values().double() / step_N1.clamp_min(1e-300)
    torch.testing.assert_close(level_ND, level_ND.round(), rtol=0, atol=1e-3)
    assert (level_ND - e_ND / step_N1.clamp_min(1e-300)).abs().max() <= 1 + 1e-3 if e_ND.numel() else True
    assert not frames.bits_NFD[~e_ND.any(1)].any()


@pytest.mark.parametrize("trits", [1, 2, 3])
def test_digits_are_unbiased_with_the_variance_of_rounding_at_random(trits):
    e_1D = torch.tensor([[1.0, -0.83, 0.4, 0.21, -0.02, 0.0]], dtype=torch.float64)
    encoder, draws = TritPlanes(trits), 4000
    values_nD = encoder.encode(e_1D.expand(draws, -1)).values()
    step = 2 / (3**trits - 1)
    part_D = (e_1D[0] / step).remainder(1.0)
    variance_D = part_D * (1 - part_D) * step**2
    error_D = (values_nD.mean(0) - e_1D[0]).abs()
    assert (error_D <= 4.5 * (variance_D / draws).sqrt() + 1e-12).all()
    torch.testing.assert_close(values_nD.var(0), variance_D, rtol=0.12, atol=1e-9)


@settings(deadline=None)
@given(shape=shapes, exponent=st.integers(-20, 20))
def test_digits_and_spread_rows_are_scale_equivariant(shape, exponent):
    e_ND, factor = rows(shape), 2.0**exponent
    for make in (lambda: TritPlanes(3), lambda: Spread(TritPlanes(2)), lambda: Spread(BitPlanes(4))):
        plain, scaled = make().encode(e_ND), make().encode(factor * e_ND)
        assert torch.equal(plain.bits_NFD, scaled.bits_NFD)
        torch.testing.assert_close(factor * plain.gain_NF, scaled.gain_NF)


@settings(deadline=None)
@given(shape=shapes)
def test_the_transform_entry_by_entry(shape):
    e_ND, transform_DE = rows(shape, torch.float64), naive_transform(shape[1])
    torch.testing.assert_close(spread_rows(e_ND), e_ND @ transform_DE)
    torch.testing.assert_close(transform_DE @ transform_DE.T, torch.eye(shape[1], dtype=torch.float64))
    torch.testing.assert_close(hadamard(hadamard(transform_DE)), transform_DE)


@settings(deadline=None)
@given(shape=shapes)
def test_a_matrix_behind_the_patterns_is_folded(shape):
    e_ND, encoder = rows(shape, torch.float64), Spread(TritPlanes(10))
    matrix_EM = torch.randn(encoder.width(shape[1]), 7, generator=torch_generator(shape[2]), dtype=torch.float64)
    folded_DM = encoder.folded(matrix_EM, shape[1])
    torch.testing.assert_close(folded_DM, naive_transform(shape[1]) @ matrix_EM)
    through_NM = encoder.encode(e_ND).values() @ matrix_EM
    torch.testing.assert_close(through_NM, e_ND @ folded_DM, rtol=0, atol=2e-3 * (1 + e_ND.abs().sum().item()))


def test_blocks_do_not_change_the_digits(monkeypatch):
    e_ND = sparse_errors(50, 30)
    whole = TritPlanes(3).encode(e_ND)
    monkeypatch.setattr(base, "_BLOCK", 7 * 30)
    blocks = TritPlanes(3).encode(e_ND)
    assert torch.equal(whole.bits_NFD, blocks.bits_NFD)
    assert torch.equal(whole.gain_NF, blocks.gain_NF)


def test_fewer_inputs_have_the_first_signs():
    assert torch.equal(signs(7), signs(300)[:7])
    assert set(signs(300).tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("width", [64, 100])
def test_projections_by_light_and_digital_ones_meet_the_folded_matrix(width):
    e_ND = sparse_errors(20, width)
    encoder = Spread(TritPlanes(8))
    digital = Encoded(Gaussian(seed=3), encoder).shaped(width, 50)
    torch.testing.assert_close(digital.project(e_ND), e_ND @ digital.matrix(), rtol=0, atol=5e-3)
    twin = Twin.ideal(seed=3)
    light = Optical(twin, encoder=encoder).shaped(width, 50)
    medium_EM = math.sqrt(2) * torch.view_as_real(twin.transmission(encoder.width(width), 25)).flatten(1)
    expected_NM = e_ND.double() @ encoder.folded(medium_EM, width)
    torch.testing.assert_close(light.project(e_ND).double(), expected_NM, rtol=0, atol=5e-3)
    torch.testing.assert_close(measure(light).double(), encoder.folded(medium_EM, width), rtol=0, atol=5e-3)


def test_entries_of_the_folded_matrix_are_independent_and_normal():
    matrix_DM = Encoded(Gaussian(), Spread()).shaped(1000, 200).matrix().double()
    assert matrix_DM.mean() == pytest.approx(0, abs=5 / math.sqrt(matrix_DM.numel()))
    assert matrix_DM.var() == pytest.approx(1, abs=0.02)
    between_DD = matrix_DM @ matrix_DM.T / 200
    off_diagonal = between_DD - torch.diag(between_DD.diagonal())
    assert off_diagonal.square().mean().sqrt() == pytest.approx(1 / math.sqrt(200), rel=0.02)


def test_spread_errors_leave_little_to_the_cameras_noise():
    e_ND = sparse_errors(200, 1024)
    exact_NM, errors = None, {}
    for encoder in (Ternary("sampled", repeats=3), Spread(TritPlanes(3))):
        twin = Twin.preset("opu-2021")
        medium_EM = math.sqrt(2) * torch.view_as_real(twin.transmission(1024, 32)).flatten(1)
        exact_NM = e_ND.double() @ encoder.folded(medium_EM, 1024)
        p_NM = Optical(twin, encoder=encoder).shaped(1024, 64).project(e_ND)
        errors[encoder.name] = ((p_NM - exact_NM).norm() / exact_NM.norm()).item()
    assert errors["spread(trit_planes(3))"] < 0.15 < 0.5 < errors["ternary(sampled, repeats=3)"]


def test_a_calibrated_matrix_is_that_of_the_rows():
    opu, encoder = Twin.ideal(seed=1), Spread(TritPlanes(8))
    calibration = calibrate(opu, num_inputs=encoder.width(50), num_modes=16, matrix="hadamard")
    projection = Optical(opu, encoder=encoder, calibration=calibration).shaped(50, 32)
    e_ND = sparse_errors(10, 50)
    torch.testing.assert_close(projection.project(e_ND), e_ND @ projection.matrix(), rtol=0, atol=0.02)


@pytest.mark.parametrize("make", [lambda: TritPlanes(3), lambda: Spread(Ternary("sampled"))], ids=["trits", "spread"])
def test_a_resumed_encoder_draws_what_it_would_have(make):
    e_ND, encoder, resumed = sparse_errors(6, 30), make(), make()
    encoder.encode(e_ND)
    resumed.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder.encode(e_ND).bits_NFD, resumed.encode(e_ND).bits_NFD)
    with pytest.raises(CheckpointError):
        resumed.load_state_dict({"calls": -1, "patterns": 3})


def test_what_cannot_be_spread_is_refused():
    with pytest.raises(ConfigError, match="copy what it makes of it"):
        Encoded(Identity(), Spread())
    with pytest.raises(SettingError, match="spread once"):
        SpreadSettings(patterns=SpreadSettings())
    with pytest.raises(ConfigError, match="patterns"):
        Spread(3)
    for wrong in (0, 11, 2.0, True):
        with pytest.raises(ConfigError, match="trits"):
            TritPlanes(wrong)
    with pytest.raises(ConfigError, match="seed"):
        TritPlanes(2, seed=0.5)
    for encoder in (TritPlanes(), Spread()):
        with pytest.raises(ConfigError, match="expected floating-point rows"):
            encoder.encode(torch.ones(2, 0))


def test_settings_build_what_they_say():
    assert SpreadSettings(patterns=BestCosineSettings()).build(0).name == "spread(ternary(best_cosine))"
    assert SpreadSettings().code == "spread 3-digit ternary"
    assert "Hadamard" in SpreadSettings().electronic
    assert not Sign().transforms
    assert Spread().transforms
