"""Interference and camera as pure functions."""

import cmath
import math

import pytest
import torch

from odfa.errors import ConfigError
from odfa.keys import torch_generator
from odfa.opu import Reference, Sensor
from odfa.opu.twin.reference import interfere
from odfa.opu.twin.sensor import detect


def counts_at(mean_e: float, sensor: Sensor, num_pixels: int = 200_000) -> torch.Tensor:
    return detect(torch.full((1, num_pixels), mean_e), sensor, (4,))[0].double()


def one_to_one(**effects: object) -> Sensor:
    """A sensor whose counts are electrons."""
    return Sensor(bits=16, full_well_e=65_535.0, **effects)


@pytest.mark.parametrize("phase_S", [(), (0.0, 2.0, 4.0), tuple(k * math.pi / 2 for k in range(4))])
def test_interference_is_the_squared_modulus(phase_S):
    field_FM = torch.randn(3, 5, dtype=torch.complex128, generator=torch_generator(0))
    phase_FS = torch.tensor(phase_S or (0.0,), dtype=torch.float64).expand(3, -1)
    intensity_FSM = interfere(field_FM.real, field_FM.imag, 1.7, phase_FS, None)
    for k, theta in enumerate(phase_S or (0.0,)):
        torch.testing.assert_close(intensity_FSM[:, k], (field_FM + 1.7 * cmath.exp(1j * theta)).abs() ** 2)


@pytest.mark.parametrize("mean_e", [0.2, 3.0, 60.0, 99.0, 101.0, 2000.0])
def test_shot_noise_has_the_mean_and_variance_of_poisson(mean_e):
    counts = counts_at(mean_e, one_to_one(read_noise_e=None))
    rounding = 1 / 12 if mean_e >= 100 else 0.0
    assert counts.mean() == pytest.approx(mean_e, abs=4 * math.sqrt(mean_e / len(counts)))
    spread = (mean_e + rounding) * math.sqrt((2 + 1 / mean_e) / len(counts))
    assert counts.var() == pytest.approx(mean_e + rounding, abs=4 * spread)


def test_few_electrons_follow_the_poisson_law():
    counts = counts_at(3.0, one_to_one(read_noise_e=None))
    for k in range(9):
        probability = math.exp(-3) * 3**k / math.factorial(k)
        error = math.sqrt(probability * (1 - probability) / len(counts))
        assert (counts == k).double().mean() == pytest.approx(probability, abs=4 * error)


@pytest.mark.parametrize(("mean_e", "shot_noise"), [(50.0, True), (500.0, True), (500.0, False)])
def test_read_noise_adds_in_variance(mean_e, shot_noise):
    counts = counts_at(mean_e, one_to_one(read_noise_e=7.0, shot_noise=shot_noise))
    expected = mean_e * shot_noise + 49 + 1 / 12
    assert counts.var() == pytest.approx(expected, rel=4 * math.sqrt(2 / len(counts)) + 0.005)
    assert counts.mean() == pytest.approx(mean_e, abs=4 * math.sqrt(expected / len(counts)))


@pytest.mark.parametrize(
    ("bits", "dtype"), [(1, torch.uint8), (8, torch.uint8), (10, torch.int16), (16, torch.int32), (None, torch.int32)]
)
def test_counts_round_and_clip(bits, dtype):
    sensor = Sensor(bits=bits, read_noise_e=None, shot_noise=False, full_well_e=1000.0)
    mean_e = torch.linspace(0, 2000, 1001, dtype=torch.float64)
    counts = detect(mean_e[None], sensor, (0,))[0]
    assert counts.dtype == dtype
    exact = (mean_e * sensor.full_scale / 1000).clamp_max(sensor.full_scale)
    assert (counts.double() - exact).abs().max() <= 0.5 + 1e-6
    assert counts.max() == sensor.full_scale


def test_dark_pixels_never_go_below_zero():
    assert counts_at(0.0, one_to_one(read_noise_e=20.0)).min() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"bits": 0},
        {"bits": 17},
        {"full_well_e": 0.0},
        {"read_noise_e": -1.0},
        {"exposure_s": 400.0},
        {"exposure_fill": 0.0},
        {"exposure_fill": 1.1},
    ],
)
def test_impossible_sensors_are_refused(arguments):
    with pytest.raises(ConfigError):
        Sensor(**arguments)


@pytest.mark.parametrize("arguments", [{"ratio": 0.0}, {"nominal_density": 0.0}, {"nominal_density": 1.5}])
def test_impossible_references_are_refused(arguments):
    with pytest.raises(ConfigError):
        Reference(**arguments)
