"""The laws of speckle, random matrices, noise and drift, fitted on what the twin's camera gives."""

import math

import numpy as np
import pytest
import torch

from odfa.demodulate import Intensity, OffAxis, PhaseSteps
from odfa.encode import Ternary
from odfa.flow import Frames
from odfa.keys import torch_generator
from odfa.lab.optics import marchenko_pastur
from odfa.opu import Drift, Medium, Mirrors, Reference, Sensor, Twin
from odfa.project import Optical

EXACT = Ternary("best_cosine")


def single(num_patterns: int, num_inputs: int, density: float = 0.5, seed: int = 0) -> Frames:
    bits_NFD = torch.rand(num_patterns, 1, num_inputs, generator=torch_generator(seed)) < density
    return Frames(bits_NFD=bits_NFD, gain_NF=torch.ones(num_patterns, 1), encoder="test")


def intensities(twin: Twin, frames: Frames, roi: tuple[int, int]) -> torch.Tensor:
    shut = Intensity().expand(frames)
    return Intensity().demodulate(twin.run(shut, roi=roi), shut).field_NM.double()


def fields(twin: Twin, num_inputs: int, num_modes: int) -> torch.Tensor:
    frames = PhaseSteps(4).expand(single(50, num_inputs))
    return PhaseSteps(4).demodulate(twin.run(frames, roi=(1, num_modes)), frames).field_NM.to(torch.complex128)


@pytest.mark.parametrize("dense_entries", [2**25, 0], ids=["dense", "structured"])
def test_speckle_is_exponential(dense_entries):
    ideal = Twin.ideal()
    twin = Twin(sensor=ideal._sensor, medium=Medium(dense_entries=dense_entries))
    value_N = intensities(twin, single(1, 600), (100, 2000))[0].sort().values
    value_N /= value_N.mean()
    assert value_N.std() == pytest.approx(1.0, abs=0.01)
    empirical_N = (torch.arange(len(value_N), dtype=torch.float64) + 0.5) / len(value_N)
    assert (empirical_N - (1 - torch.exp(-value_N))).abs().max() < 1.95 / math.sqrt(len(value_N))  # KS, p = 0.001
    tail = [(value_N > k).double().mean().item() for k in (1, 2, 3, 4, 5)]
    assert np.polyfit(range(1, 6), np.log(tail), 1)[0] == pytest.approx(-1, abs=0.03)


def test_fields_are_circular_gaussian():
    field_NM = fields(Twin.ideal(), 600, 2000)
    field_NM = field_NM - field_NM.mean(0)  # what all patterns have in common counts once only
    variance = field_NM.abs().square().mean()
    assert (field_NM.square().mean() / variance).abs() < 0.01  # no preferred phase
    for part in (field_NM.real, field_NM.imag):
        assert part.square().mean() / variance == pytest.approx(0.5, abs=0.01)
        assert part.pow(4).mean() / part.square().mean().square() == pytest.approx(3, abs=0.03)
    assert field_NM.mean().abs() < 0.02 * variance.sqrt()


@pytest.mark.parametrize(("num_inputs", "num_modes"), [(512, 512), (512, 1024), (256, 1024)])
@pytest.mark.parametrize("dense_entries", [2**25, 0], ids=["dense", "structured"])
def test_singular_values_follow_the_quarter_circle_and_marchenko_pastur(num_inputs, num_modes, dense_entries):
    matrix_DM = Twin(medium=Medium(dense_entries=dense_entries)).transmission(num_inputs, num_modes)
    singular = torch.linalg.svdvals(matrix_DM).sort().values.numpy()
    singular /= math.sqrt(np.mean(singular**2))
    s, density = marchenko_pastur(num_inputs / num_modes, points=20_001)
    cumulative = np.cumsum(density) / density.sum()
    quantiles = np.interp((np.arange(num_inputs) + 0.5) / num_inputs, cumulative, s)
    assert np.abs(singular - quantiles).mean() <= 0.01  # Wasserstein-1
    if num_inputs == num_modes:
        quarter = np.sqrt(np.clip(4 - s**2, 0, None)) / np.pi
        assert np.abs(density - quarter)[200:].max() < 1e-6


def relative_error(twin: Twin, demodulator, *, density: float = 0.3, num_inputs: int = 100, modes: int = 300) -> float:
    generator = torch_generator(1)
    sign_ND = torch.randint(2, (40, num_inputs), generator=generator) * 2 - 1
    e_ND = (torch.rand(40, num_inputs, generator=generator) < density) * sign_ND.float()
    e_ND[:, 0] = 1.0
    p_NM = Optical(twin, encoder=EXACT, demodulator=demodulator).shaped(num_inputs, 2 * modes).project(e_ND)
    exact_NM = e_ND.double() @ (math.sqrt(2) * torch.view_as_real(twin.transmission(num_inputs, modes)).flatten(1))
    return ((p_NM - exact_NM).norm() / exact_NM.norm()).item()


@pytest.mark.parametrize("demodulator", [PhaseSteps(4), OffAxis()], ids=repr)
def test_error_falls_as_the_square_root_of_the_photons(demodulator):
    photons_e = np.geomspace(1e3, 1e7, 9)
    errors = [
        relative_error(
            Twin(
                noise_seed=k, sensor=Sensor(bits=None, read_noise_e=None, full_well_e=full_well_e, exposure_fill=0.02)
            ),
            demodulator,
        )
        for k, full_well_e in enumerate(photons_e)
    ]
    assert np.polyfit(np.log(photons_e), np.log(errors), 1)[0] == pytest.approx(-0.50, abs=0.03)


def test_error_halves_with_every_bit():
    bits = range(4, 11)
    errors = [
        relative_error(Twin(sensor=Sensor(bits=b, shot_noise=False, read_noise_e=None)), PhaseSteps(4)) for b in bits
    ]
    assert np.polyfit(bits, np.log2(errors), 1)[0] == pytest.approx(-1.0, abs=0.05)


@pytest.mark.parametrize("phi", [0.3, 0.8, 1.2, math.pi / 2])
def test_a_drifted_reference_correlates_as_its_cosine(phi):
    """B = Re(e^(i phi) A): after a quarter turn it is a new matrix."""
    ideal = Twin.ideal()
    twins = [
        Twin(sensor=ideal._sensor, reference=ideal._reference),
        Twin(sensor=ideal._sensor, reference=ideal._reference),
    ]
    e_ND = torch.eye(30)
    projections = []
    for twin, angle in zip(twins, (0.0, phi), strict=True):
        frame_s = twin.frame_s((1, 2000))
        twin._drift = Drift(phase_drift_rad_per_s=angle / 100)
        twin._spent = twin.cost(round(100 / frame_s), roi=(1, 2000))  # 100 seconds have gone by
        projections.append(Optical(twin, encoder=EXACT).shaped(30, 4000).project(e_ND)[:, 0::2])
    before, after = projections
    correlation = (before * after).sum() / (before.norm() * after.norm())
    assert correlation == pytest.approx(math.cos(phi), abs=0.02)


@pytest.mark.parametrize("rho", [0.99, 0.9, 0.5])
def test_a_decorrelated_medium_correlates_as_rho(rho):
    twin = Twin.ideal(drift=Drift(decorrelation_s=1000.0))
    optical = Optical(twin, encoder=EXACT).shaped(30, 4000)
    before = optical.project(torch.eye(30))
    seconds = 1000.0 * math.acos(rho) * 2 / math.pi
    twin.load_state_dict({**twin.state_dict(), "spent": {**vars(twin.spent), "seconds": seconds}})
    after = optical.project(torch.eye(30))
    assert ((before * after).sum() / (before.norm() * after.norm())).item() == pytest.approx(rho, abs=0.02)
    assert after.norm() / before.norm() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.7, 1.0])
def test_intensity_kernel(overlap):
    """E[|A x|^2 |A y|^2] = |x|^2 |y|^2 + (x . y)^2 at 20,000 outputs; the gain s^4 is 1 in the twin's units."""
    generator, width, lit = torch_generator(5), 400, 120
    order = torch.randperm(width, generator=generator)
    bits_NFD = torch.zeros(2, 1, width, dtype=torch.bool)
    common = round(overlap * lit)
    bits_NFD[0, 0, order[:lit]] = True
    bits_NFD[1, 0, order[lit - common : 2 * lit - common]] = True
    frames = Frames(bits_NFD=bits_NFD, gain_NF=torch.ones(2, 1), encoder="test")
    ratios = []
    for seed in range(6):
        x_M, y_M = intensities(Twin.ideal(seed), frames, (10, 2000))
        ratios.append((x_M * y_M).mean().item() / (lit * lit + common**2))
    assert max(abs(ratio - 1) for ratio in ratios) < 0.06  # heavy tails: one draw of 20,000 scatters by 1 to 3 %
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def opu(ratio: float, density: float, *, bits: int = 8, full_well_e: float = 13_500.0) -> Twin:
    """Camera of the table; reference and exposure set for the light that one frame of the pair really has."""
    pupil_cpp = math.sqrt(1 / (26 * math.pi))
    reference = Reference(ratio=ratio, nominal_density=density, pupil_cpp=pupil_cpp)
    twin = Twin(sensor=Sensor(bits=bits, full_well_e=full_well_e), reference=reference)
    twin.saturated_limit = 1.0
    return twin


def quiet(drift: Drift) -> Twin:
    """The same geometry, a camera without noise: rows 6 and 8 count the jitter alone."""
    ideal = Twin.ideal()
    return Twin(sensor=ideal._sensor, reference=ideal._reference, drift=drift)


@pytest.mark.parametrize(
    ("expected", "twin", "density"),
    [
        pytest.param(0.014, opu(16, 0.3), 0.6, id="row 2: reference 16 : 1"),
        pytest.param(0.033, opu(100, 0.3), 0.6, id="row 2: reference 100 : 1"),
        pytest.param(0.028, opu(4, 0.3), 0.6, id="row 2: reference 4 : 1, some clipping"),
        pytest.param(0.022, opu(4, 0.3, bits=10), 0.6, id="row 2: 10 bits"),
        pytest.param(0.029, opu(4, 0.3, bits=6), 0.6, id="row 2: 6 bits"),
        pytest.param(0.040, opu(4, 0.3, bits=4), 0.6, id="row 2: 4 bits"),
        pytest.param(0.043, opu(4, 0.3, full_well_e=1000.0), 0.6, id="row 2: full well 1,000 e-"),
        pytest.param(0.030, opu(4, 0.05), 0.1, id="row 3: density 0.05"),
        pytest.param(0.051, opu(4, 0.01), 0.02, id="row 3: density 0.01"),
        pytest.param(0.02, quiet(Drift(phase_jitter_rad=0.02)), 0.6, id="row 6: 0.02 rad"),
        pytest.param(0.10, quiet(Drift(phase_jitter_rad=0.1)), 0.6, id="row 6: 0.1 rad"),
        pytest.param(0.30, quiet(Drift(phase_jitter_rad=0.3)), 0.6, id="row 6: 0.3 rad"),
        pytest.param(0.01, quiet(Drift(gain_jitter=0.01)), 0.6, id="row 8: 1 %"),
        pytest.param(0.05, quiet(Drift(gain_jitter=0.05)), 0.6, id="row 8: 5 %"),
    ],
)
def test_rows_of_the_error_table(expected, twin, density):
    found = relative_error(twin, OffAxis(), density=density, num_inputs=500)
    assert found == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("leak", [0.02, 0.05])
def test_row_9_of_the_error_table_leakage_is_a_gain(leak):
    ideal = Twin.ideal()
    twin = Twin(sensor=ideal._sensor, reference=ideal._reference, mirrors=Mirrors(leak=leak))
    e_ND = torch.eye(30) - torch.eye(30).roll(1, 0)
    p_NM, sound_NM = (Optical(opu, encoder=EXACT).shaped(30, 500).project(e_ND) for opu in (twin, ideal))
    torch.testing.assert_close(p_NM, (1 - leak) * sound_NM, atol=1e-4, rtol=1e-4)
