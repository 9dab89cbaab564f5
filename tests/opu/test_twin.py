"""The twin as an OPU: light, exposure, saturation, random state, refusals."""

import copy
import dataclasses
import pickle

import pytest
import torch

from odfa import units
from odfa.demodulate import PhaseSteps
from odfa.errors import ConfigError, Dark, FrameMismatch, Incompatible, Saturated
from odfa.flow import Frames
from odfa.keys import torch_generator
from odfa.opu import AbstractOpu, Reference, Sensor, Twin


def lit(num_samples: int, num_inputs: int, density: float) -> Frames:
    bits_NFD = torch.rand(num_samples, 2, num_inputs, generator=torch_generator(0)) < density
    frames = Frames(bits_NFD=bits_NFD, gain_NF=torch.tensor([[1.0, -1.0]]).expand(num_samples, 2), encoder="test")
    return PhaseSteps(4).expand(frames)


def test_counts_are_what_the_optics_say():
    twin = Twin(seed=2, sensor=Sensor(read_noise_e=None, shot_noise=False, bits=12), reference=Reference(ratio=9.0))
    frames = lit(3, 6, 0.5)
    counts_NFPQ = twin.run(frames, roi=(1, 4)).counts_NFPQ
    field_NFM = frames.bits_NFD.to(torch.complex128) @ twin.transmission(6, 4)
    amplitude, counts_per_intensity = (9.0 * 0.3 * 6) ** 0.5, 0.3 * 4095 / (10 * 0.3 * 6)
    assert twin.counts_per_intensity(6, "stepped") == pytest.approx(counts_per_intensity)
    assert twin.reference_amplitude(6) == pytest.approx(amplitude)
    for f in range(2):
        for k, theta in enumerate(frames.phase_S):
            reference = amplitude * torch.exp(torch.tensor(1j * theta, dtype=torch.complex128))
            expected_NM = ((field_NFM[:, f] + reference).abs() ** 2 * counts_per_intensity).clamp(0, 4095)
            assert (counts_NFPQ[:, 4 * f + k, 0] - expected_NM).abs().max() < 0.501


@pytest.mark.parametrize("num_inputs", [10, 100, 1000])
def test_exposure_fills_the_well_as_set(num_inputs):
    twin = Twin(sensor=Sensor(bits=16, exposure_fill=0.1))
    counts = twin.run(lit(30, num_inputs, 0.3), roi=(1, 500)).counts_NFPQ
    assert counts.double().mean() / twin.full_scale == pytest.approx(0.1, rel=0.03)


def test_saturation_is_the_share_of_full_scale_counts():
    twin = Twin(sensor=Sensor(exposure_fill=0.7))
    twin.saturated_limit = 0.5
    capture = twin.run(lit(5, 20, 0.5), roi=(1, 100))
    share = (capture.counts_NFPQ == 255).double().mean().item()
    assert capture.acquisition.saturated_fraction == share
    assert 0.02 < share < 0.5


def test_light_is_accounted():
    twin = Twin.preset("opu-2021")
    twin.run(lit(5, 20, 0.5), roi=(1, 100))
    twin.run(lit(2, 20, 0.5), roi=(1, 100))
    assert twin.spent.frames == 7 * 2 * 4
    assert twin.spent.seconds == pytest.approx(56 / 2000)
    assert twin.spent.joules == pytest.approx(30 * 56 / 2000)
    assert twin.spent == twin.cost(40, roi=(1, 100)) + twin.cost(16, roi=(1, 100))


@pytest.mark.parametrize(("rows", "rate_hz"), [(1, 2000), (50, 2000), (156, 1994), (491, 713), (1088, 333)])
def test_the_time_of_a_frame_grows_with_rows(rows, rate_hz):
    light = Twin.preset("opu-2021").cost(1000, roi=(rows, 2040))
    assert light.seconds == pytest.approx(1000 / rate_hz, rel=2e-3)
    assert light.ops_peak / light.seconds == pytest.approx(1535e12, rel=2e-3)


def test_small_cameras_do_not_claim_more_than_their_pixels():
    light = Twin(shape_dmd=(2, 5), shape_cam=(1, 50)).cost(3, roi=(1, 50))
    assert light.ops_peak == 2 * 10 * 50 * 3


def test_state_continues_the_noise_bit_for_bit():
    frames = lit(2, 8, 0.4)
    twin = Twin(noise_seed=4)
    twin.run(frames, roi=(1, 30))
    resumed = Twin(noise_seed=4)
    resumed.load_state_dict(twin.state_dict())
    others = [resumed, copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))]
    second = twin.run(frames, roi=(1, 30)).counts_NFPQ
    assert all(torch.equal(second, other.run(frames, roi=(1, 30)).counts_NFPQ) for other in others)
    assert all(other.spent == twin.spent for other in others)
    assert not torch.equal(second, twin.run(frames, roi=(1, 30)).counts_NFPQ)
    assert not torch.equal(second, Twin(noise_seed=5).run(frames, roi=(1, 30)).counts_NFPQ)


def test_copies_carry_the_key_and_not_the_matrix():
    twin = Twin()
    twin.run(lit(1, 100, 0.3), roi=(5, 1000))
    assert len(pickle.dumps(twin)) < 5000


def test_opu_id_names_the_medium_and_not_the_noise():
    assert Twin(seed=1).opu_id == Twin(seed=1, noise_seed=9, sensor=Sensor(bits=4)).opu_id
    assert Twin(seed=1).opu_id != Twin(seed=2).opu_id


def test_refusals_come_before_the_first_frame():
    twin = Twin(shape_dmd=(2, 5), shape_cam=(4, 20))
    for inputs, roi, words in ((11, (1, 5), "10 mirrors"), (5, (1, 21), "4 x 20 camera"), (5, (5, 2), "4 x 20 camera")):
        with pytest.raises(Incompatible, match=words):
            twin.run(lit(1, inputs, 0.5), roi=roi)
    twin.arms = frozenset({"blocked"})
    with pytest.raises(Incompatible, match="step its reference phase; demodulators that fit: Anchor"):
        twin.run(lit(1, 5, 0.5), roi=(1, 5))
    assert twin.spent.frames == 0


class _Clumsy(AbstractOpu):
    """Shows one level everywhere on the frames that it does not lose."""

    opu_id, shape_dmd, shape_cam, rate_hz, power_w = "clumsy", (10, 10), (10, 10), 10.0, 1.0
    exposure_s, full_scale, arms = 1e-3, 255, frozenset({"stepped"})
    lost, level = 0, 100

    def _run_hw(self, bits_FD, *, phase_S, arm, roi):
        return torch.full((len(bits_FD) * max(1, len(phase_S)) - self.lost, *roi), self.level, dtype=torch.uint8)


def clumsy(**faults: int) -> _Clumsy:
    opu = _Clumsy()
    vars(opu).update(faults)
    return opu


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        ({"lost": 1}, FrameMismatch, "16 frames of 1 x 3 pixels asked for"),
        ({"level": 255}, Saturated, "100% of the camera's pixels"),
        ({"level": 1}, Dark, "brightest pixel reads 1 of 255"),
    ],
)
def test_bad_captures_have_their_own_errors(faults, error, words):
    with pytest.raises(error, match=words):
        clumsy(**faults).run(lit(2, 4, 0.5), roi=(1, 3))


def test_a_good_capture_passes_and_dark_patterns_may_be_dark():
    assert clumsy().run(lit(2, 4, 0.5), roi=(1, 3)).counts_NFPQ.shape == (2, 8, 1, 3)
    assert not clumsy(level=0).run(lit(2, 4, 0.0), roi=(1, 3)).counts_NFPQ.any()


def test_shared_patterns_come_first_and_apart():
    frames = dataclasses.replace(lit(3, 4, 0.5), shared_AD=torch.ones(1, 4, dtype=torch.bool))
    twin = Twin.ideal()
    capture = twin.run(frames, roi=(2, 3))
    capture.check()
    alone = dataclasses.replace(frames, bits_NFD=torch.ones(1, 1, 4, dtype=torch.bool), shared_AD=None)
    assert twin.spent.frames == 4 + 3 * 8
    assert torch.equal(capture.shared_APQ, twin.run(alone, roi=(2, 3)).counts_NFPQ[0])
    assert torch.equal(capture.counts_NFPQ, twin.run(lit(3, 4, 0.5), roi=(2, 3)).counts_NFPQ)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate_hz": 0.0},
        {"power_w": -30.0},
        {"shape_dmd": (0, 5)},
        {"shape_cam": (5, 0)},
        {"matrix": torch.zeros(3, 3)},
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
