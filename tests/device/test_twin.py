"""The twin as a device: light, exposure, saturation, random state, refusals."""

import copy
import dataclasses
import pickle

import pytest
import torch

from odfa import units
from odfa.demodulate import PhaseSteps
from odfa.device import AbstractDevice, Reference, Sensor, Twin
from odfa.errors import ConfigError, FrameMismatch, Incompatible
from odfa.flow import Frames
from odfa.keys import torch_generator


def lit(num_samples: int, num_inputs: int, density: float) -> Frames:
    bits_NFD = torch.rand(num_samples, 2, num_inputs, generator=torch_generator(0)) < density
    frames = Frames(bits_NFD=bits_NFD, gain_NF=torch.tensor([[1.0, -1.0]]).expand(num_samples, 2), encoder="test")
    return PhaseSteps(4).expand(frames)


def test_counts_are_what_the_optics_say():
    twin = Twin(seed=2, sensor=Sensor(read_noise_e=None, shot_noise=False, bits=12), reference=Reference(ratio=9.0))
    frames = lit(3, 6, 0.5)
    counts_NFPQ = twin.run(frames, num_modes=4).counts_NFPQ
    real_DM, imag_DM = twin._medium(6, 4)
    field_NFM = frames.bits_NFD.to(torch.complex128) @ torch.complex(real_DM, imag_DM).to(torch.complex128)
    amplitude, counts_per_intensity = (9.0 * 0.3 * 6) ** 0.5, 0.3 * 4095 / (10 * 0.3 * 6)
    assert twin.counts_per_field(6) == pytest.approx(amplitude * counts_per_intensity)
    for f in range(2):
        for k, theta in enumerate(frames.phase_S):
            reference = amplitude * torch.exp(torch.tensor(1j * theta, dtype=torch.complex128))
            expected_NM = ((field_NFM[:, f] + reference).abs() ** 2 * counts_per_intensity).clamp(0, 4095)
            assert (counts_NFPQ[:, 4 * f + k, 0] - expected_NM).abs().max() < 0.501


@pytest.mark.parametrize("num_inputs", [10, 100, 1000])
def test_exposure_fills_the_well_as_set(num_inputs):
    twin = Twin(sensor=Sensor(bits=16, exposure_fill=0.1))
    counts = twin.run(lit(30, num_inputs, 0.3), num_modes=500).counts_NFPQ
    assert counts.double().mean() / twin.full_scale == pytest.approx(0.1, rel=0.03)


def test_saturation_is_the_share_of_full_scale_counts():
    twin = Twin(sensor=Sensor(exposure_fill=0.7))
    capture = twin.run(lit(5, 20, 0.5), num_modes=100)
    share = (capture.counts_NFPQ == 255).double().mean().item()
    assert capture.acquisition.saturated_fraction == share
    assert 0.02 < share < 0.5


def test_light_is_accounted():
    twin = Twin.preset("opu-2021")
    twin.run(lit(5, 20, 0.5), num_modes=100)
    twin.run(lit(2, 20, 0.5), num_modes=100)
    assert twin.spent.frames == 7 * 2 * 4
    assert twin.spent.seconds == pytest.approx(56 / 2000)
    assert twin.spent.joules == pytest.approx(30 * 56 / 2000)
    assert twin.spent == twin.cost(40, num_modes=100) + twin.cost(16, num_modes=100)


@pytest.mark.parametrize("num_modes", [1000, 377_500, 2_219_520])
def test_peak_throughput_is_mirrors_times_pixel_rate(num_modes):
    light = Twin.preset("opu-2021").cost(1000, num_modes=num_modes)
    assert light.ops_peak / light.seconds == pytest.approx(2 * 1_039_680 * 755e6)
    assert light.seconds == pytest.approx(1000 * max(1 / 2000, num_modes / 755e6))


def test_small_cameras_do_not_claim_more_than_their_pixels():
    light = Twin(num_mirrors=10, num_modes=50).cost(3, num_modes=50)
    assert light.ops_peak == 2 * 10 * 50 * 3


def test_state_continues_the_noise_bit_for_bit():
    frames = lit(2, 8, 0.4)
    twin = Twin(noise_seed=4)
    twin.run(frames, num_modes=30)
    resumed = Twin(noise_seed=4)
    resumed.load_state_dict(twin.state_dict())
    others = [resumed, copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))]
    second = twin.run(frames, num_modes=30).counts_NFPQ
    assert all(torch.equal(second, other.run(frames, num_modes=30).counts_NFPQ) for other in others)
    assert all(other.spent == twin.spent for other in others)
    assert not torch.equal(second, twin.run(frames, num_modes=30).counts_NFPQ)
    assert not torch.equal(second, Twin(noise_seed=5).run(frames, num_modes=30).counts_NFPQ)


def test_copies_carry_the_key_and_not_the_matrix():
    twin = Twin()
    twin.run(lit(1, 100, 0.3), num_modes=5000)
    assert len(pickle.dumps(twin)) < 5000


def test_device_id_names_the_medium_and_not_the_noise():
    assert Twin(seed=1).device_id == Twin(seed=1, noise_seed=9, sensor=Sensor(bits=4)).device_id
    assert Twin(seed=1).device_id != Twin(seed=2).device_id


def test_refusals_come_before_the_first_frame():
    twin = Twin(num_mirrors=10, num_modes=20)
    for inputs, modes, words in ((11, 5, "10 mirrors"), (5, 21, "20 modes")):
        with pytest.raises(Incompatible, match=words):
            twin.run(lit(1, inputs, 0.5), num_modes=modes)
    twin.steps_phase = False
    with pytest.raises(Incompatible, match="phase"):
        twin.run(lit(1, 5, 0.5), num_modes=5)
    assert twin.spent.frames == 0


class _Clumsy(AbstractDevice):
    """Loses a frame of every run."""

    device_id, num_mirrors, num_modes, rate_hz, pixel_rate_hz, power_w = "clumsy", 100, 100, 10.0, 1e6, 1.0
    exposure_s, steps_phase, full_scale = 1e-3, True, 255

    def counts_per_field(self, num_inputs: int) -> float:
        return 1.0

    def _run_hw(self, bits_FD, phase_S, num_modes):
        return torch.zeros(len(bits_FD) * max(1, len(phase_S)) - 1, 1, num_modes, dtype=torch.uint8)


def test_lost_frames_are_noticed():
    with pytest.raises(FrameMismatch, match="16 frames shown"):
        _Clumsy().run(lit(2, 4, 0.5), num_modes=3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate_hz": 0.0},
        {"power_w": -30.0},
        {"num_mirrors": 0},
        {"num_modes": 0},
        {"pixel_rate_hz": 2000.0 / 1e6},
        {"seed": 0.5},
    ],
)
def test_impossible_twins_are_refused(arguments):
    with pytest.raises(ConfigError):
        Twin(**arguments)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match="opu-2021"):
        Twin.preset("opu-2022")


@pytest.mark.parametrize("twin", [Twin(), Twin.ideal(), Twin.preset("opu-2021")], ids=repr)
def test_defaults_and_presets_are_physically_sensible(twin):
    checked = 0
    quantities = {**dataclasses.asdict(twin._sensor), **dataclasses.asdict(twin._reference), **vars(twin)}
    for name, value in quantities.items():
        if units.range_of(name) is not None and value is not None:
            units.check(name, value)
            checked += 1
    assert checked >= 5
    assert 1 / twin.rate_hz >= twin.exposure_s
