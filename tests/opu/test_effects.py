"""What the twin can do wrong on purpose: stuck and leaking mirrors, correlated glass, drift; each alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tests.structured.reference import matrix as structured_matrix

from odfa.demodulate import PhaseSteps
from odfa.draws import Draws
from odfa.errors import ConfigError, Incompatible
from odfa.flow import Frames
from odfa.keys import mix, torch_generator
from odfa.opu import Drift, Medium, Mirrors, Reference, Sensor, Twin
from odfa.opu.twin.medium import CHUNK, Scatterer
from odfa.structured import quarter_circle


def patterns(num_patterns: int, num_inputs: int, density: float = 0.5) -> Frames:
    bits_NFD = torch.rand(num_patterns, 1, num_inputs, generator=torch_generator(1)) < density
    return Frames(bits_NFD=bits_NFD, gain_NF=torch.ones(num_patterns, 1), encoder="test", arm="blocked")


def fields(twin: Twin, frames: Frames, num_modes: int) -> torch.Tensor:
    """Complex fields (N, M) of single patterns by four ideal phase steps."""
    stepped, demodulator = PhaseSteps(4).expand(frames), PhaseSteps(4)
    return demodulator.demodulate(twin.run(stepped, roi=(1, num_modes)), stepped).field_NM.to(torch.complex128)


def quiet(**settings: object) -> Twin:
    """An ideal twin but for what is set."""
    ideal = Twin.ideal()
    return Twin(sensor=ideal._sensor, reference=ideal._reference, **settings)


def correlation(a: torch.Tensor, b: torch.Tensor) -> complex:
    return (torch.vdot(a.flatten(), b.flatten()) / (a.norm() * b.norm())).item()


def test_mirrors_answer_as_a_mirror_by_mirror_count_says():
    mirrors, num_inputs, per_input = Mirrors(leak=0.1, stuck_off=0.2, stuck_on=0.1, seed=3), 40, 25
    weight_D, offset_D = mirrors.response(num_inputs, num_inputs * per_input + 7)
    # undo the leak to find the integers behind, then count light mirror by mirror
    free_D = (weight_D / 0.9 * per_input).round()
    torch.testing.assert_close(weight_D, free_D / per_input * 0.9)
    for d in range(num_inputs):
        on = round(((offset_D[d] * per_input - 0.1 * (per_input - 0)) / 0.9).item())
        off = per_input - int(free_D[d]) - on
        for lit in (0.0, 1.0):
            light = [1.0] * on + [0.1] * off + [1.0 if lit else 0.1] * int(free_D[d])
            assert len(light) == per_input
            assert (weight_D[d] * lit + offset_D[d]).item() == pytest.approx(sum(light) / per_input)
    assert 1 - (free_D.mean() / per_input).item() == pytest.approx(0.3, abs=0.05)


def test_sound_mirrors_answer_one_to_one():
    weight_D, offset_D = Mirrors().response(30, 1000)
    assert torch.equal(weight_D, torch.ones(30, dtype=torch.float64))
    assert not offset_D.any()


def test_leak_and_stuck_mirrors_are_static_and_leave_differences_linear():
    twin, frames = quiet(mirrors=Mirrors(leak=0.05, stuck_on=0.1, stuck_off=0.1)), patterns(2, 30)
    field_NM = fields(twin, frames, 50)
    difference_D = frames.bits_NFD[0, 0].double() - frames.bits_NFD[1, 0].double()
    expected_M = difference_D.to(torch.complex128) @ twin.transmission(30, 50)
    torch.testing.assert_close(field_NM[0] - field_NM[1], expected_M, atol=1e-5, rtol=1e-5)
    dark_M = fields(twin, patterns(1, 30, density=0.0), 50)[0]
    assert dark_M.abs().square().mean() > 0.01


def test_structured_modes_equal_their_explicit_matrix():
    num_inputs, num_modes = 37, 1024 + 50
    scatterer = Scatterer(5, num_inputs, Medium(dense_entries=0), torch.float64)
    x_FD = torch.randn(2, num_inputs, dtype=torch.float64, generator=torch_generator(0))
    real_FM, imag_FM = scatterer.propagate(x_FD, num_modes)
    matrix_DM = structured_matrix(mix(int.from_bytes(b"layers"), 5), num_inputs, 2 * num_modes) / math.sqrt(2)
    np.testing.assert_allclose(real_FM.numpy(), x_FD.numpy() @ matrix_DM[:, ::2], atol=1e-9)
    np.testing.assert_allclose(imag_FM.numpy(), x_FD.numpy() @ matrix_DM[:, 1::2], atol=1e-9)


@pytest.mark.parametrize("num_inputs", [256, 1000, 4096])
def test_structured_spectrum_and_entries_are_those_of_a_gaussian_matrix(num_inputs):
    scatterer = Scatterer(1, num_inputs, Medium(dense_entries=0), torch.float32)
    real_DM, imag_DM = scatterer.propagate(torch.eye(num_inputs), 1024)
    matrix_DM = torch.complex(real_DM, imag_DM)
    wide = max(matrix_DM.shape)
    singular = torch.linalg.svdvals(matrix_DM).double().sort().values / math.sqrt(wide)
    generator = torch_generator(2)
    gaussian_DM = torch.randn(num_inputs, 1024, dtype=torch.complex64, generator=generator)
    expected = torch.linalg.svdvals(gaussian_DM).double().sort().values / math.sqrt(wide)
    assert (singular - expected).abs().mean() <= 0.01
    for part_DM in (real_DM.double(), imag_DM.double()):
        assert part_DM.square().mean() == pytest.approx(0.5, rel=0.01)
        assert part_DM.pow(4).mean() / part_DM.square().mean() ** 2 == pytest.approx(3, abs=0.02)
    assert (real_DM * imag_DM).mean().abs() < 4 * 0.5 / math.sqrt(real_DM.numel())
    # the entries of two rows and two columns: 0 if independent, near 1 for two transforms instead of three
    a_DM = matrix_DM.to(torch.complex128)
    quad = (a_DM[:-1, :-1] * a_DM[1:, :-1].conj() * a_DM[:-1, 1:].conj() * a_DM[1:, 1:]).mean()
    assert quad.abs() < 0.02


def test_quarter_circle_has_the_moments_of_the_law():
    values = quarter_circle(10_000).astype(np.float64)
    assert np.mean(values**2) == pytest.approx(1, abs=1e-3)
    assert np.mean(values**4) == pytest.approx(2, abs=2e-3)
    assert np.mean(values) == pytest.approx(8 / (3 * np.pi), abs=1e-3)


def test_dense_modes_come_first_and_the_rest_do_not_depend_on_the_width():
    medium = Medium(dense_entries=20 * CHUNK + 5)
    scatterer, dense = Scatterer(2, 20, medium, torch.float64), Scatterer(2, 20, Medium(), torch.float64)
    assert scatterer.dense_modes == CHUNK
    x_FD = torch.randn(3, 20, dtype=torch.float64, generator=torch_generator(0))
    wide_FM, narrow_FM = scatterer.propagate(x_FD, 3 * CHUNK)[0], scatterer.propagate(x_FD, CHUNK + 9)[0]
    torch.testing.assert_close(wide_FM[:, : CHUNK + 9], narrow_FM)
    torch.testing.assert_close(wide_FM[:, :CHUNK], dense.propagate(x_FD, CHUNK)[0])
    assert (wide_FM[:, CHUNK:] - dense.propagate(x_FD, 3 * CHUNK)[0][:, CHUNK:]).abs().min(1).values.max() > 1e-6


@pytest.mark.parametrize("width", [0.7, 3.0])
def test_memory_effect_correlates_neighbouring_columns(width):
    matrix_DM = Twin(medium=Medium(memory_inputs=width)).transmission(60, 2000)
    assert matrix_DM.abs().square().mean(1).min() > 0.85  # unit variance, at the rim too
    for distance in (1, 4):
        found = (matrix_DM[:-distance] * matrix_DM[distance:].conj()).mean().real.item()
        assert found == pytest.approx(math.exp(-(distance**2) / (4 * width**2)), abs=0.05)


def test_grain_correlates_neighbouring_pixels():
    twin = Twin(medium=Medium(grain_px=1.5))
    matrix_DM = twin.transmission(200, 1000)
    assert matrix_DM.abs().square().mean() == pytest.approx(1, abs=0.05)
    found = (matrix_DM[:, :-2] * matrix_DM[:, 2:].conj()).mean().real.item()
    assert found == pytest.approx(math.exp(-(2**2) / (4 * 1.5**2)), abs=0.05)
    torch.testing.assert_close(matrix_DM[:, :10], twin.transmission(200, 10))


def test_medium_and_mirrors_belong_to_the_name():
    twins = [
        Twin(),
        Twin(medium=Medium(grain_px=2.0)),
        Twin(mirrors=Mirrors(leak=0.1)),
        Twin(medium=Medium(memory_inputs=1.0)),
    ]
    assert len({twin.opu_id for twin in twins}) == 4
    assert Twin(drift=Drift(gain_jitter=0.1)).opu_id == Twin().opu_id


def test_a_given_matrix_is_used_and_checked():
    matrix_DM = torch.randn(6, 9, dtype=torch.complex64, generator=torch_generator(0))
    twin = Twin.ideal(matrix=matrix_DM)
    field_NM = fields(twin, patterns(3, 6), 9)
    expected_NM = patterns(3, 6).bits_NFD[:, 0].to(torch.complex128) @ matrix_DM.to(torch.complex128)
    torch.testing.assert_close(field_NM, expected_NM, atol=1e-5, rtol=1e-5)
    with pytest.raises(Incompatible, match="matrix of 6 inputs"):
        fields(twin, patterns(1, 7), 5)
    with pytest.raises(ConfigError, match="9 modes"):
        fields(twin, patterns(1, 6), 10)


def test_phase_drift_turns_the_field_at_its_rate():
    twin = quiet(drift=Drift(phase_drift_rad_per_s=20.0))
    first_NM = fields(twin, patterns(1, 20), 40)
    elapsed_s = twin.spent.seconds
    second_NM = fields(twin, patterns(1, 20), 40)
    turned = np.angle(correlation(first_NM, second_NM))
    assert abs(turned) == pytest.approx(20.0 * elapsed_s, rel=0.02)


def test_phase_jitter_and_gain_jitter_have_the_spread_that_was_set():
    twin = Twin(sensor=Sensor(bits=16, read_noise_e=None, shot_noise=False), drift=Drift(gain_jitter=0.05))
    counts_N = (
        twin.run(
            dataclasses.replace(
                patterns(1, 8), bits_NFD=patterns(1, 8).bits_NFD.expand(1, 4000, 8), gain_NF=torch.ones(1, 4000)
            ),
            roi=(1, 1),
        )
        .counts_NFPQ.double()
        .flatten()
    )
    assert counts_N.std() / counts_N.mean() == pytest.approx(0.05, rel=0.05)
    phase_F = Drift(phase_jitter_rad=0.3).phase_F(torch.zeros(20_000, dtype=torch.float64), Draws(0))
    assert phase_F.std() == pytest.approx(0.3, rel=0.03)
    assert not Drift().phase_F(torch.ones(5, dtype=torch.float64), Draws(0)).any()
    assert Drift().gain_F(5, Draws(0)) is None


def test_the_medium_turns_into_another_and_never_stops():
    period_s = 1.0
    twin = quiet(drift=Drift(decorrelation_s=period_s))
    first_NM = fields(twin, patterns(1, 50), 400)
    for elapsed in (0.5, 1.0, 2.5):
        twin._spent = dataclasses.replace(twin.spent, seconds=elapsed)
        found = abs(correlation(first_NM, fields(twin, patterns(1, 50), 400)))
        assert found == pytest.approx(max(0.0, math.cos(math.pi * elapsed / 2)) if elapsed <= 1 else 0.0, abs=0.15)
        assert fields(twin, patterns(1, 50), 400).abs().square().mean() == pytest.approx(
            first_NM.abs().square().mean().item(), rel=0.2
        )


def test_the_mirrors_warm_up():
    twin = quiet(drift=Drift(warmup_rad=0.4, warmup_s=1.0))
    settled_NM = fields(quiet(), patterns(4, 200), 100)
    found = []
    for seconds in (0.0, 1.0, 3.0, 20.0):
        twin._spent = dataclasses.replace(twin.spent, seconds=seconds)
        found.append(abs(correlation(settled_NM, fields(twin, patterns(4, 200), 100))))
    # to second order the correlation with the settled field is exp(-variance / 2) for a Gaussian-like profile
    assert found[0] == pytest.approx(math.exp(-(0.4**2) / 2), abs=0.03)
    assert found == sorted(found)
    assert found[-1] == pytest.approx(1, abs=1e-6)


def test_dark_current_and_ripple_are_seen():
    dark = Twin(sensor=Sensor(bits=16, read_noise_e=None, dark_e_per_s=1e6, exposure_s=1e-3))
    counts = dark.run(patterns(1, 8, density=0.0), roi=(10, 100)).counts_NFPQ.double()
    assert counts.mean() / dark._sensor.counts_per_e == pytest.approx(1000, rel=0.02)
    ripple = Twin(sensor=Sensor(bits=16, shot_noise=False), reference=Reference(ripple=0.2, ripple_px=10.0))
    frames = dataclasses.replace(patterns(1, 8, density=0.0), arm="stepped")
    row = ripple.run(frames, roi=(1, 100)).counts_NFPQ.double().flatten()
    assert (row.sqrt().max() / row.sqrt().min()).item() == pytest.approx(1.2 / 0.8, rel=0.02)


def test_state_continues_the_drift():
    settings = {"drift": Drift(phase_drift_rad_per_s=3.0, phase_jitter_rad=0.1, gain_jitter=0.01, decorrelation_s=5.0)}
    twin = Twin(**settings)
    twin.run(patterns(5, 10), roi=(1, 20))
    resumed = Twin(**settings)
    resumed.load_state_dict(twin.state_dict())
    frames = PhaseSteps(3).expand(patterns(2, 10))
    assert torch.equal(twin.run(frames, roi=(1, 20)).counts_NFPQ, resumed.run(frames, roi=(1, 20)).counts_NFPQ)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mirrors(leak=1.0),
        lambda: Mirrors(stuck_on=0.6, stuck_off=0.5),
        lambda: Medium(dense_entries=-1),
        lambda: Medium(grain_px=0.0),
        lambda: Drift(gain_jitter=2.0),
        lambda: Drift(decorrelation_s=0.0),
        lambda: Drift(phase_drift_rad_per_s=1e9),
        lambda: Reference(ripple=1.0),
        lambda: Reference(carrier_cpp=(0.5, 0.1)),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()
