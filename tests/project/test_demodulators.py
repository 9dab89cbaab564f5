"""Every linear demodulator, noise-free, against the explicit matrix in float64, entry by entry; and a naive camera."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa import fourier
from odfa.demodulate import Anchor, Intensity, OffAxis, PhaseSteps
from odfa.encode import Sign, Ternary
from odfa.errors import ConfigError, FrameMismatch, Incompatible
from odfa.flow import Frames, View
from odfa.keys import torch_generator
from odfa.opu import Drift, Reference, Sensor, Twin
from odfa.project import Optical

EXACT = Ternary("best_cosine")
LINEAR = [PhaseSteps(4), PhaseSteps(3), OffAxis(), OffAxis(flat_field=True), Anchor(), Anchor(pixels_per_mode=1)]


def ternary_rows(num_samples: int, num_inputs: int, density: float, seed: int = 0) -> torch.Tensor:
    generator = torch_generator(seed)
    uniform_ND = torch.rand(num_samples, num_inputs, generator=generator)
    sign_ND = torch.randint(2, (num_samples, num_inputs), generator=generator) * 2 - 1
    return (uniform_ND < density) * sign_ND * (0.1 + torch.rand(num_samples, 1, generator=generator))


def explicit(twin: Twin, demodulator, num_inputs: int, num_outputs: int) -> torch.Tensor:
    """B_DM in float64 from the transmission matrix alone."""
    if not isinstance(demodulator, Anchor):
        field_DM = twin.transmission(num_inputs, -(-num_outputs // 2))
        return math.sqrt(2) * torch.view_as_real(field_DM).flatten(1)[:, :num_outputs]
    per_output = demodulator._pixels
    matrix_DJ = twin.transmission(demodulator.inputs(num_inputs), per_output * num_outputs)
    anchor_J = matrix_DJ[num_inputs:].sum(0)
    cross_DMG = (anchor_J.conj() * matrix_DJ[:num_inputs]).real.unflatten(1, (num_outputs, per_output))
    return (
        math.sqrt(2) * cross_DMG.sum(2) / anchor_J.abs().square().unflatten(0, (num_outputs, per_output)).sum(1).sqrt()
    )


def assert_exact(twin: Twin, demodulator, e_ND: torch.Tensor, num_outputs: int) -> None:
    p_NM = Optical(twin, encoder=EXACT, demodulator=demodulator).shaped(e_ND.shape[1], num_outputs).project(e_ND)
    expected_NM = e_ND.double() @ explicit(twin, demodulator, e_ND.shape[1], num_outputs)
    scale_N1 = e_ND.double().norm(dim=1, keepdim=True)
    # an anchor divides by its own light: where one pixel per output is dark, so is the precision
    loose = 100 if isinstance(demodulator, Anchor) and demodulator._pixels == 1 else 1
    assert ((p_NM.double() - expected_NM).abs() <= 1e-5 * loose * scale_N1).all()


@settings(deadline=None, max_examples=80)
@given(
    demodulator=st.sampled_from(LINEAR),
    num_inputs=st.sampled_from([1, 2, 3, 7, 10, 33, 257, 1000]),
    num_outputs=st.sampled_from([1, 2, 3, 9, 64, 513]),
    density=st.sampled_from([0.01, 0.3, 1.0]),
    num_samples=st.integers(0, 5),
)
def test_ideal_demodulators_are_the_exact_linear_projection(demodulator, num_inputs, num_outputs, density, num_samples):
    assert_exact(Twin.ideal(seed=6), demodulator, ternary_rows(num_samples, num_inputs, density), num_outputs)


@pytest.mark.parametrize("demodulator", LINEAR[:5], ids=repr)
@pytest.mark.parametrize("density", [0.0005, 0.5])
def test_ten_thousand_inputs(demodulator, density):
    e_ND = ternary_rows(3, 10_000, density)
    e_ND[:, 0] = torch.where(e_ND.any(1), e_ND.abs().amax(1), 1.0)  # no row is empty, and each keeps one magnitude
    assert_exact(Twin.ideal(), demodulator, e_ND, 40 if isinstance(demodulator, Anchor) else 300)


def test_ten_thousand_inputs_beyond_the_stored_matrix():
    """2^25 entries are 3,328 modes of 10,000 inputs; the outputs beyond come from the structured medium."""
    twin, e_ND = Twin.ideal(), ternary_rows(2, 10_000, 0.3)
    p_NM = Optical(twin, encoder=EXACT).shaped(10_000, 2 * 3328 + 40).project(e_ND)
    twin_again = Twin.ideal()
    field_NM = twin_again._through(0, e_ND.double(), None, 3328 + 20, "stepped")
    expected_NM = math.sqrt(2) * torch.stack(field_NM, 2).flatten(1)
    scale_N1 = e_ND.double().norm(dim=1, keepdim=True)
    assert ((p_NM - expected_NM).abs() <= 1e-5 * scale_N1).all()


def naive_camera(field_M: np.ndarray, view: View, reference: float, carrier: tuple[int, int]) -> np.ndarray:
    """|E + R|^2 pixel by pixel, E the sum of its plane waves: no transform."""
    rows, cols = (part.numpy() for part in fourier.pupil_bins(view))
    image = np.zeros(view.shape)
    for p in range(view.shape[0]):
        for q in range(view.shape[1]):
            waves = np.exp(2j * np.pi * (rows * p / view.shape[0] + cols * q / view.shape[1]))
            value = (field_M * waves).sum() / math.sqrt(len(rows))
            value += reference * np.exp(2j * np.pi * (carrier[0] * p / view.shape[0] + carrier[1] * q / view.shape[1]))
            image[p, q] = abs(value) ** 2
    return image


def test_the_tilted_twin_is_the_naive_camera():
    twin = Twin.ideal(seed=2)
    view = View(shape=(16, 18), carrier_cpp=twin.carrier_cpp, pupil_cpp=twin.pupil_cpp)
    bits_NFD = torch.rand(2, 1, 7, generator=torch_generator(3)) < 0.6
    frames = OffAxis().expand(Frames(bits_NFD=bits_NFD, gain_NF=torch.ones(2, 1), encoder="test"))
    counts_NPQ = twin.run(frames, roi=view.shape).counts_NFPQ[:, 0].double().numpy()
    matrix_DM = twin.transmission(7, len(fourier.pupil_bins(view)[0])).numpy()
    for bits_FD, counts_PQ in zip(bits_NFD.numpy(), counts_NPQ, strict=True):
        field_M = bits_FD[0].astype(float) @ matrix_DM
        image = naive_camera(field_M, view, twin.reference_amplitude(7), fourier.carrier_bin(view))
        expected_PQ = image * twin.counts_per_intensity(7, "tilted")
        assert np.abs(counts_PQ - expected_PQ).max() < 1e-6 * expected_PQ.max()


def test_beyond_eight_point_one_percent_the_orders_spill_into_the_window():
    """The error of a noise-free projection against the share of pixels used as modes."""
    errors = {}
    for pupil_cpp in (0.141, 0.159, 0.18, 0.21):
        carrier = 0.5 - pupil_cpp - 1 / 60
        ideal = Twin.ideal()
        reference = Reference(ratio=1.0, nominal_density=1.0, carrier_cpp=(carrier, carrier), pupil_cpp=pupil_cpp)
        twin = Twin(sensor=ideal._sensor, reference=reference)
        demodulator, e_ND = OffAxis(), ternary_rows(6, 40, 0.5)
        frames = demodulator.expand(EXACT.encode(e_ND))
        capture = twin.run(frames, roi=(60, 60))
        field_NM = demodulator.demodulate(capture, frames).field_NM.to(torch.complex128)
        expected_NM = e_ND.to(torch.complex128) @ twin.transmission(40, field_NM.shape[1])
        errors[field_NM.shape[1] / 3600] = ((field_NM - expected_NM).norm() / expected_NM.norm()).item()
    shares, found = list(errors), list(errors.values())
    assert all(error < 1e-5 for share, error in errors.items() if share <= 0.081)
    assert shares[2] > 0.081
    assert found[2] > 0.02
    assert found[3] > 2 * found[2]


def test_plus_less_minus_cancels_static_bias_and_leak():
    """A reference with a sharp ripple spills into the window; between the frames of a pair it cancels."""
    ideal = Twin.ideal()
    reference = Reference(ratio=4.0, nominal_density=1.0, ripple=0.2, ripple_px=3.0)
    twin = Twin(sensor=ideal._sensor, reference=reference)
    demodulator = OffAxis()
    single = Frames(
        bits_NFD=torch.rand(4, 1, 40, generator=torch_generator(0)) < 0.5, gain_NF=torch.ones(4, 1), encoder="x"
    )
    dark = Frames(bits_NFD=torch.zeros(1, 1, 40, dtype=torch.bool), gain_NF=torch.ones(1, 1), encoder="x")
    pairs = Frames(bits_NFD=single.bits_NFD.view(2, 2, 40), gain_NF=torch.tensor([[1.0, -1.0]] * 2), encoder="x")

    def field(frames: Frames) -> torch.Tensor:
        expanded = demodulator.expand(frames)
        return demodulator.demodulate(twin.run(expanded, roi=(60, 60)), expanded).field_NM

    bias_M = field(dark)[0]
    lit_NM = field(single)
    difference_NM = lit_NM[0::2] - lit_NM[1::2]
    assert bias_M.norm() > 0.2 * lit_NM[0].norm()
    torch.testing.assert_close(field(pairs), difference_NM, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(difference_NM, (lit_NM - bias_M)[0::2] - (lit_NM - bias_M)[1::2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ripple_px", [40.0, 100.0])
def test_flat_fielding_removes_slow_ripple(ripple_px):
    ideal = Twin.ideal()
    reference = Reference(ratio=1.0, nominal_density=1.0, ripple=0.25, ripple_px=ripple_px)
    twin, e_ND = Twin(sensor=ideal._sensor, reference=reference), ternary_rows(6, 50, 0.4)
    expected_NM = e_ND.double() @ explicit(twin, OffAxis(), 50, 800)
    errors = []
    for flat_field in (False, True):
        p_NM = Optical(twin, encoder=EXACT, demodulator=OffAxis(flat_field=flat_field)).shaped(50, 800).project(e_ND)
        errors.append(((p_NM - expected_NM).norm() / expected_NM.norm()).item())
    assert errors[0] > 0.15
    assert errors[1] < 0.3 * errors[0]


def test_anchor_rows_are_gaussian_and_its_noise_falls_with_the_pixels():
    """G exponential intensities have E[1 / sum] = 1 / (G - 1): noise power G / (G - 1) over that of an even anchor."""
    e_ND = ternary_rows(60, 60, 0.4)
    noise = {}
    for pixels in (4, 8, 16):
        demodulator = Anchor(pixels_per_mode=pixels)
        matrix_DM = explicit(Twin(), demodulator, 60, 400)
        assert matrix_DM.var() == pytest.approx(1, abs=0.03)
        assert matrix_DM.pow(4).mean() == pytest.approx(3, abs=0.15)
        twin = Twin(sensor=Sensor(bits=None, shot_noise=False, read_noise_e=10.0, speckle_fill=0.02))
        p_NM = Optical(twin, encoder=EXACT, demodulator=demodulator).shaped(60, 400).project(e_ND)
        noise[pixels] = ((p_NM - e_ND.double() @ matrix_DM).square().mean()).item()
    assert noise[4] / noise[16] == pytest.approx((4 / 3) / (16 / 15), rel=0.1)
    assert noise[8] / noise[16] == pytest.approx((8 / 7) / (16 / 15), rel=0.1)


def test_an_anchor_does_not_see_the_phase_of_the_light():
    e_ND = ternary_rows(20, 30, 0.5)
    still, turning = (
        Optical(Twin.ideal(drift=drift), encoder=EXACT, demodulator=Anchor()).shaped(30, 50).project(e_ND)
        for drift in (None, Drift(phase_drift_rad_per_s=100.0, phase_jitter_rad=1.0))
    )
    assert torch.equal(still, turning)


def test_an_anchor_takes_out_its_own_light_from_unsigned_codes():
    bits_NFD = torch.rand(5, 1, 30, generator=torch_generator(0)) < 0.4
    frames = Anchor().expand(Frames(bits_NFD=bits_NFD, gain_NF=torch.full((5, 1), 2.0), encoder="unsigned"))
    twin = Twin.ideal()
    field_NM = Anchor().demodulate(twin.run(frames, roi=(1, 200)), frames).field_NM
    expected_NM = 2 * bits_NFD[:, 0].double() @ explicit(twin, Anchor(), 30, 50) / math.sqrt(2)
    torch.testing.assert_close(field_NM.double(), expected_NM, atol=1e-4, rtol=1e-4)


def test_intensity_is_the_squared_modulus():
    bits_NFD = torch.rand(4, 2, 30, generator=torch_generator(0)) < 0.4
    gain_NF = torch.tensor([[1.0, -0.5]] * 4)
    frames = Intensity().expand(Frames(bits_NFD=bits_NFD, gain_NF=gain_NF, encoder="x"))
    twin = Twin.ideal()
    found_NM = Intensity().demodulate(twin.run(frames, roi=(2, 50)), frames).field_NM
    intensity_NFM = (bits_NFD.to(torch.complex128) @ twin.transmission(30, 100)).abs().square()
    torch.testing.assert_close(found_NM.double(), intensity_NFM[:, 0] - 0.5 * intensity_NFM[:, 1], atol=1e-4, rtol=1e-5)


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(Incompatible, match=r"not linear.*OffAxis\(\)"):
        Optical(Twin(), demodulator=Intensity())
    small = Twin(shape_cam=(40, 40))
    with pytest.raises(Incompatible, match="reads at most about"):
        Optical(small, demodulator=OffAxis()).shaped(10, 400)
    overlapping = Twin(reference=Reference(carrier_cpp=(0.2, 0.2)))
    with pytest.raises(Incompatible, match="orders overlap"):
        Optical(overlapping, demodulator=OffAxis()).shaped(10, 400)
    flat = Twin()
    flat.arms = frozenset({"blocked"})
    with pytest.raises(Incompatible, match="fit: Anchor"):
        Optical(flat, demodulator=OffAxis()).shaped(10, 40)
    with pytest.raises(ConfigError):
        Anchor(pixels_per_mode=0)
    with pytest.raises(ConfigError):
        Anchor(share=0.0)
    with pytest.raises(ConfigError):
        OffAxis(flat_field=1)


@pytest.mark.parametrize("demodulator", [OffAxis(), Anchor(), Intensity()], ids=repr)
def test_captures_of_another_shape_are_refused(demodulator):
    frames = demodulator.expand(EXACT.encode(ternary_rows(3, 10, 0.5)))
    capture = Twin().run(frames, roi=(16, 16))
    fewer = demodulator.expand(EXACT.encode(ternary_rows(2, 10, 0.5)))
    with pytest.raises(FrameMismatch, match="for each of 2 samples"):
        demodulator.demodulate(capture, fewer)


def test_wide_cameras_take_rectangles_and_wider_begins_with_narrower():
    flat = Twin.ideal()
    flat.shape_cam = (40, 2040)
    rows, cols = OffAxis().roi(900, flat.view)
    assert (rows, cols < 2040) == (40, True)
    e_ND = ternary_rows(3, 20, 0.5)
    narrow, wide = (
        Optical(Twin.ideal(), encoder=Sign(), demodulator=OffAxis()).shaped(20, width).project(e_ND)
        for width in (30, 900)
    )
    torch.testing.assert_close(narrow, wide[:, :30], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("demodulator", LINEAR[:5], ids=repr)
def test_density_is_that_of_the_code_whatever_the_demodulator_adds(demodulator):
    e_ND = ternary_rows(30, 200, 0.3)
    optical = Optical(Twin(), encoder=EXACT, demodulator=demodulator).shaped(200, 20)
    optical.project(e_ND)
    assert optical.diagnostics["density"] == pytest.approx((e_ND != 0).float().mean().item())
