"""The light path as a whole, against explicit complex matrices in float64, and the laws of its noise."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa.demodulate import PhaseSteps
from odfa.encode import Ternary
from odfa.errors import Incompatible
from odfa.keys import torch_generator
from odfa.opu import Drift, Reference, Sensor, Twin
from odfa.project import Optical
from odfa.project import optical as optical_module

EXACT = Ternary("best_cosine")


def ternary_rows(num_samples: int, num_inputs: int, density: float, seed: int = 0) -> torch.Tensor:
    """Rows that `best_cosine` encodes without loss: entries 0 or +-c, c different from row to row."""
    generator = torch_generator(seed)
    uniform_ND = torch.rand(num_samples, num_inputs, generator=generator)
    sign_ND = torch.randint(2, (num_samples, num_inputs), generator=generator) * 2 - 1
    return (uniform_ND < density) * sign_ND * (0.1 + torch.rand(num_samples, 1, generator=generator))


def explicit_matrix(twin: Twin, num_inputs: int, num_outputs: int) -> torch.Tensor:
    """B_DM in float64: sqrt(2) times real and imaginary part of each mode in turn."""
    field_DM = twin.transmission(num_inputs, -(-num_outputs // 2))
    return math.sqrt(2) * torch.view_as_real(field_DM).flatten(1)[:, :num_outputs]


def relative_error(p_NM: torch.Tensor, expected_NM: torch.Tensor) -> float:
    return ((p_NM.double() - expected_NM).norm() / expected_NM.norm()).item()


@settings(deadline=None, max_examples=60)
@given(
    num_samples=st.integers(0, 6),
    num_inputs=st.sampled_from([1, 2, 3, 7, 10, 33, 257, 1000]),
    num_outputs=st.sampled_from([1, 2, 3, 9, 64, 513]),
    density=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    steps=st.sampled_from([3, 4]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_ideal_twin_equals_explicit_complex_arithmetic(num_samples, num_inputs, num_outputs, density, steps, dtype):
    twin = Twin.ideal(seed=6)
    e_ND = ternary_rows(num_samples, num_inputs, density).to(dtype)
    optical = Optical(twin, encoder=EXACT, demodulator=PhaseSteps(steps)).shaped(num_inputs, num_outputs)
    p_NM = optical.project(e_ND)
    expected_NM = e_ND.double() @ explicit_matrix(twin, num_inputs, num_outputs)
    assert p_NM.dtype == dtype
    scale_N1 = e_ND.double().norm(dim=1, keepdim=True)
    assert ((p_NM.double() - expected_NM).abs() <= 1e-5 * scale_N1).all()


@pytest.mark.parametrize("quantiser", ["stochastic", "sampled", "relative_max"])
def test_ideal_twin_projects_what_the_encoder_made(quantiser):
    twin = Twin.ideal()
    e_ND = torch.randn(20, 30, generator=torch_generator(0))
    code_ND = Ternary(quantiser, seed=4).encode(e_ND).values().double()
    p_NM = Optical(twin, encoder=Ternary(quantiser, seed=4)).shaped(30, 50).project(e_ND)
    assert relative_error(p_NM, code_ND @ explicit_matrix(twin, 30, 50)) < 1e-5


def test_ideal_twin_is_linear():
    optical = Optical(Twin.ideal(), encoder=EXACT).shaped(8, 40)
    basis_NM = optical.project(torch.eye(8))
    e_ND = ternary_rows(30, 8, 0.6)
    assert relative_error(optical.project(e_ND), (e_ND @ basis_NM).double()) < 1e-5


def test_entries_have_unit_variance():
    matrix_DM = explicit_matrix(Twin(seed=1), 300, 600)
    assert matrix_DM.mean() == pytest.approx(0, abs=4 / math.sqrt(matrix_DM.numel()))
    assert matrix_DM.var() == pytest.approx(1, abs=4 * math.sqrt(2 / matrix_DM.numel()))


def test_wider_begins_with_narrower():
    e_ND = ternary_rows(5, 12, 0.5)
    narrow_NM, wide_NM = (Optical(Twin.ideal(3), encoder=EXACT).shaped(12, width).project(e_ND) for width in (7, 700))
    torch.testing.assert_close(narrow_NM, wide_NM[:, :7], atol=1e-5, rtol=1e-5)


def test_error_falls_as_the_square_root_of_the_photons():
    photons_e = np.geomspace(1e3, 1e7, 9)
    e_ND = ternary_rows(40, 100, 0.3)
    errors = []
    for k, full_well_e in enumerate(photons_e):
        twin = Twin(
            noise_seed=k, sensor=Sensor(bits=None, read_noise_e=None, full_well_e=full_well_e, exposure_fill=0.02)
        )
        p_NM = Optical(twin, encoder=EXACT).shaped(100, 512).project(e_ND)
        errors.append(relative_error(p_NM, e_ND.double() @ explicit_matrix(twin, 100, 512)))
    exponent = np.polyfit(np.log(photons_e), np.log(errors), 1)[0]
    assert exponent == pytest.approx(-0.5, abs=0.03)


def test_preset_noise_is_what_shot_read_and_rounding_noise_predict():
    twin, e_ND = Twin.preset("opu-2021"), ternary_rows(60, 200, 0.3)
    p_NM = Optical(twin, encoder=EXACT).shaped(200, 1024).project(e_ND)
    expected_NM = e_ND.double() @ explicit_matrix(twin, 200, 1024)
    lit_per_pattern_e = 0.3 * 13_500 * (16 + 0.5) / 17  # half of the nominal density in each of the two patterns
    pixel_variance_e2 = lit_per_pattern_e + 13**2 + (13_500 / 255) ** 2 / 12
    quadrature_variance_e2 = 2 * pixel_variance_e2 / 8  # two patterns, each (I0 - I2) / 4
    counts_per_field = twin.counts_per_intensity(200, "stepped") * twin.reference_amplitude(200)
    e_per_field = counts_per_field / twin._sensor.counts_per_e
    gain_N = e_ND.abs().amax(1).double()
    predicted = math.sqrt(2 * quadrature_variance_e2 * gain_N.square().mean()) / e_per_field
    assert (p_NM - expected_NM).square().mean().sqrt() == pytest.approx(predicted, rel=0.02)


def test_saturation_and_density_are_reported():
    twin = Twin(sensor=Sensor(exposure_fill=0.8))
    twin.saturated_limit = 0.5
    optical = Optical(twin, encoder=EXACT).shaped(50, 200)
    optical.project(ternary_rows(20, 50, 0.6))
    assert optical.diagnostics["density"] == pytest.approx(0.6, abs=0.05)
    assert 0.05 < optical.diagnostics["saturated_fraction"] < 0.5
    ideal = Optical(Twin.ideal(), encoder=EXACT).shaped(50, 200)
    ideal.project(torch.ones(5, 50))
    assert ideal.diagnostics == {"density": 1.0, "saturated_fraction": 0.0}


def test_dark_rows_take_no_light_and_no_noise():
    e_ND = ternary_rows(12, 9, 0.9)
    e_ND[[0, 4, 11]] = 0
    whole, lit_only = (Optical(Twin(noise_seed=3), encoder=EXACT).shaped(9, 30) for _ in range(2))
    p_NM = whole.project(e_ND)
    assert not p_NM[[0, 4, 11]].any()
    assert torch.equal(p_NM[e_ND.any(1)], lit_only.project(e_ND[e_ND.any(1)]))
    assert whole.spent.frames == 9 * 8
    assert not whole.project(torch.zeros(3, 9)).any()
    assert whole.project(torch.zeros(0, 9)).shape == (0, 30)
    assert whole.spent.frames == 9 * 8


def test_light_is_accounted_as_announced():
    optical = Optical(Twin.preset("opu-2021")).shaped(10, 31)
    optical.project(torch.randn(6, 10, generator=torch_generator(0)))
    light = optical.spent
    assert light == optical.cost(6)
    assert light.frames == 6 * 2 * 4
    assert light.seconds == pytest.approx(48 / 2000)
    assert light.joules == pytest.approx(48 / 2000 * 30)
    assert light.ops_useful == 2 * 10 * 31 * 6
    repeated = Optical(Twin(), encoder=Ternary(repeats=3), demodulator=PhaseSteps(3)).shaped(10, 31)
    assert repeated.cost(6).frames == 6 * 2 * 3 * 3


def test_chunks_over_samples_change_nothing(monkeypatch):
    e_ND = ternary_rows(11, 9, 0.9)
    whole = Optical(Twin.ideal(), encoder=EXACT).shaped(9, 30)
    expected_NM = whole.project(e_ND)
    monkeypatch.setattr(optical_module, "_PIXELS_AT_A_TIME", 2 * 8 * 15)
    chunked = Optical(Twin.ideal(), encoder=EXACT).shaped(9, 30)
    torch.testing.assert_close(chunked.project(e_ND), expected_NM, atol=1e-6, rtol=1e-6)
    assert chunked.spent.frames == whole.spent.frames
    assert chunked.diagnostics == pytest.approx(whole.diagnostics)


def test_code_and_noise_do_not_depend_on_chunks(monkeypatch):
    """But for counts that rounding of a field moves, few beside those that another noise moves."""
    e_ND, drift = torch.randn(40, 60, generator=torch_generator(2)), Drift(phase_jitter_rad=0.1, gain_jitter=0.05)

    def projected(noise_seed: int) -> torch.Tensor:
        return Optical(Twin(noise_seed=noise_seed, drift=drift), encoder=Ternary(seed=3)).shaped(60, 30).project(e_ND)

    whole_NM, other_NM = projected(1), projected(2)
    monkeypatch.setattr(optical_module, "_PIXELS_AT_A_TIME", 3 * 8 * 15)
    chunked_NM = projected(1)
    assert (chunked_NM - whole_NM).norm() < 0.02 * (other_NM - whole_NM).norm()


def test_state_continues_code_and_noise_bit_for_bit():
    e_ND = torch.randn(7, 10, generator=torch_generator(0))

    def fresh() -> Optical:
        return Optical(Twin(noise_seed=2), encoder=Ternary(seed=3)).shaped(10, 21)

    optical = fresh()
    optical.project(e_ND)
    resumed = fresh()
    resumed.load_state_dict(optical.state_dict())
    others = [resumed, copy.deepcopy(optical)]
    second_NM = optical.project(e_ND)
    assert all(torch.equal(other.project(e_ND), second_NM) for other in others)
    assert not torch.equal(optical.project(e_ND), second_NM)


def test_shapes_share_the_opu():
    optical = Optical(Twin())
    wide, narrow = optical.shaped(10, 20), optical.shaped(5, 4)
    wide.project(torch.ones(1, 10))
    narrow.project(torch.ones(1, 5))
    assert optical.spent.frames == wide.spent.frames == narrow.spent.frames == 16


def test_what_does_not_fit_is_refused_before_the_first_frame():
    twin = Twin(shape_dmd=(2, 5), shape_cam=(1, 20))
    optical = Optical(twin)
    optical.shaped(10, 40)
    for shape, words in (((11, 40), "10 mirrors"), ((10, 41), "1 x 20 camera pixels")):
        with pytest.raises(Incompatible, match=words):
            optical.shaped(*shape)
    twin.arms = frozenset({"tilted"})
    with pytest.raises(Incompatible, match=r"demodulators that fit: OffAxis"):
        optical.shaped(10, 40)
    assert twin.spent.frames == 0


def test_identity_names_medium_inputs_demodulator_and_encoder():
    def identity(
        seed: int = 0, inputs: int = 10, steps: int = 4, quantiser: str = "stochastic", noise_seed: int = 0
    ) -> str:
        twin = Twin(seed, noise_seed=noise_seed)
        return Optical(twin, encoder=Ternary(quantiser), demodulator=PhaseSteps(steps)).shaped(inputs, 6).identity

    others = {identity(seed=1), identity(inputs=11), identity(steps=3), identity(quantiser="sampled")}
    assert len(others | {identity()}) == 5
    assert identity() == identity(noise_seed=1)


def test_a_stronger_reference_leaves_less_room_for_the_signal():
    e_ND = ternary_rows(30, 100, 0.3)
    errors = []
    for ratio in (16.0, 64.0, 256.0):
        twin = Twin(reference=Reference(ratio=ratio))
        p_NM = Optical(twin, encoder=EXACT).shaped(100, 512).project(e_ND)
        errors.append(relative_error(p_NM, e_ND.double() @ explicit_matrix(twin, 100, 512)))
    assert errors == sorted(errors)
    assert errors[2] / errors[0] == pytest.approx(4, rel=0.15)
