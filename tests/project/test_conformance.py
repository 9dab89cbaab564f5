"""The conformance suite: sound OPUs pass, and each broken one fails for its own reason."""

import ast
import re
from pathlib import Path

import pytest
import torch
from tests.opu.rig import rig

import odfa.opu.template
from odfa.demodulate import Anchor, OffAxis, PhaseSteps
from odfa.errors import ConfigError, Disconnected
from odfa.opu import AbstractOpu, Drift, Sensor, Twin
from odfa.opu.template import MyOPU
from odfa.project.conformance import check


class Broken(AbstractOpu):
    """A twin behind a fault."""

    def __init__(self, twin: Twin, fault, arm: str = "stepped") -> None:
        self._twin, self._fault = twin, fault
        self.opu_id, self.shape_dmd, self.shape_cam = "broken", twin.shape_dmd, twin.shape_cam
        self.rate_hz, self.power_w, self.exposure_s = twin.rate_hz, twin.power_w, twin.exposure_s
        self.full_scale, self.arms = twin.full_scale, frozenset({arm})
        if arm == "tilted":
            self.carrier_cpp, self.pupil_cpp = twin.carrier_cpp, twin.pupil_cpp

    def counts_per_intensity(self, num_inputs, arm):
        return self._twin.counts_per_intensity(num_inputs, arm)

    def reference_amplitude(self, num_inputs):
        return self._twin.reference_amplitude(num_inputs)

    def _run_hw(self, bits_FD, *, phase_S, arm, roi):
        return self._fault(self._twin._run_hw(bits_FD, phase_S=phase_S, arm=arm, roi=roi), self._twin)


def failed(opu: AbstractOpu, **settings: object) -> dict[str, str]:
    report = check(opu, **settings)
    assert report.passed == (not any(not c.passed for c in report.checks))
    assert all(c.reason for c in report.checks if not c.passed)
    assert all("\n" not in c.reason for c in report.checks)
    return {c.name: c.reason for c in report.checks if not c.passed}


@pytest.mark.parametrize("demodulator", [PhaseSteps(4), PhaseSteps(3), OffAxis(), Anchor()], ids=repr)
@pytest.mark.parametrize("twin", [Twin(), Twin.ideal(), Twin.preset("opu-2021", seed=3)], ids=repr)
def test_twins_pass_with_every_demodulator(twin, demodulator):
    assert failed(twin, demodulator=demodulator) == {}


@pytest.mark.parametrize("arm", ["stepped", "tilted", "blocked"])
def test_a_bench_passes(arm):
    inputs = 40 + round(0.3 * 40) * (arm == "blocked")
    assert failed(rig(inputs, arm=arm)[0], num_inputs=40, num_modes=32) == {}


def test_the_template_passes_and_is_short():
    assert failed(MyOPU()) == {}
    tree = ast.parse(Path(odfa.opu.template.__file__).read_text(encoding="utf-8"))
    lines = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)}
    assert len(lines) < 30


def swapped(counts, twin):
    return torch.cat([counts[-1:], counts[:-1]])


def drifting(counts, twin):
    twin._seed, twin._scatterers = twin._seed + 1, {}
    return counts


def curved(counts, twin):
    return (255 * (counts.double() / 255).pow(4)).round().to(torch.uint8)


def refusing(counts, twin):
    raise Disconnected("the cable is out")


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (swapped, {"pairing"}),
        (drifting, {"repeatability"}),
        (curved, {"linearity"}),
        (lambda counts, twin: (counts.int() * 5).clamp_max(255).to(torch.uint8), {"saturation"}),
        (lambda counts, twin: counts[:-1], {"shapes", "pairing"}),
        (
            lambda counts, twin: (counts.float() + 40 * torch.randn(counts.shape)).clamp(0, 255).to(torch.uint8),
            {"noise"},
        ),
        (refusing, {"shapes", "noise", "pairing", "timing"}),
    ],
)
def test_a_broken_opu_fails_where_it_is_broken(fault, names):
    assert names <= failed(Broken(Twin(), fault)).keys()


def of_gamma(gamma: float):
    return lambda counts, twin: (255 * (counts.double() / 255).pow(gamma)).round().to(torch.uint8)


def automatic_gain(counts, twin):
    mean_F11 = counts.double().mean((1, 2), keepdim=True)
    return (counts.double() * (70 / mean_F11.clamp_min(0.01))).round().clamp_max(255).to(torch.uint8)


def with_pixels_at(value: int, share: float):
    def fault(counts, twin):
        mask_PQ = torch.rand(counts.shape[1:], generator=torch.Generator().manual_seed(5)) < share
        return counts.masked_fill(mask_PQ, value)

    return fault


ARMS = ["stepped", "tilted", "blocked"]


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize(
    ("fault", "name", "words"),
    [
        (of_gamma(0.45), "response", r"light to the power 0\.4[4-8]: switch the camera's gamma"),
        (of_gamma(2.2), "response", "switch the camera's gamma"),
        (automatic_gain, "gain", "switch the camera's automatic gain and automatic exposure off"),
        (with_pixels_at(255, 0.02), "pixels", r"2\.2% of the pixels do not follow the light.*hot or dead pixels"),
        (with_pixels_at(0, 0.02), "pixels", r"2\.2% of the pixels do not follow the light.*hot or dead pixels"),
    ],
)
def test_a_camera_that_alters_its_counts_is_told_by_name(fault, name, words, arm):
    found = failed(Broken(Twin(), fault, arm))
    assert {"gain", "response", "pixels"} & found.keys() == {name}
    assert re.search(words, found[name])


@pytest.mark.parametrize("arm", ARMS)
def test_noise_jitter_and_a_black_level_do_not_spoil_a_sound_camera(arm):
    """Four times the noise of a machine-vision camera, a laser that flickers, 0.05 rad of vibration, black at 12."""
    twin = Twin(sensor=Sensor(read_noise_e=100.0), drift=Drift(gain_jitter=0.01, phase_jitter_rad=0.05))
    brighter = lambda counts, twin: (counts.int() * 0.9 + 12).round().clamp_max(255).to(torch.uint8)  # noqa: E731
    assert {"gain", "response", "pixels"}.isdisjoint(failed(Broken(twin, brighter, arm)))


@pytest.mark.parametrize("inputs", [1, 2, 3, 10])
def test_few_inputs_are_no_fault(inputs):
    assert {"gain", "response", "pixels"}.isdisjoint(failed(Twin(), num_inputs=inputs))


class Unplugged(Broken):
    def _open_hw(self):
        raise OSError("no such device")


class Stuck(Broken):
    def _close_hw(self):
        raise OSError("busy")


def test_hardware_that_does_not_open_or_close_is_a_finding():
    assert failed(Unplugged(Twin(), swapped)) == {"opening": "Disconnected: broken: OSError: no such device"}
    assert failed(Stuck(Twin(), lambda counts, twin: counts)) == {"closing": "Disconnected: broken: OSError: busy"}


def test_an_opu_is_left_as_it_was_found():
    opu = MyOPU()
    assert check(opu).passed
    assert not opu.is_open
    with opu:
        check(opu)
        assert opu.is_open


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"shape_dmd": (100,)}, r"shape_dmd: expected \(rows, columns\)"),
        ({"power_w": float("nan")}, "power_w: expected a number"),
    ],
)
def test_what_an_opu_states_wrongly_is_all_that_is_reported(stated, words):
    opu = MyOPU()
    for name, value in stated.items():
        setattr(opu, name, value)
    found = failed(opu)
    assert found.keys() == {"abilities"}
    assert re.search(words, found["abilities"])


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(ConfigError, match="opu: expected an opu, got str 'twin'"):
        check("twin")
    with pytest.raises(ConfigError, match="num_inputs: expected an integer"):
        check(Twin(), num_inputs=0)
    with pytest.raises(ConfigError, match="demodulator: expected a demodulator"):
        check(Twin(), demodulator="anchor")


def test_errors_become_reasons():
    assert failed(Broken(Twin(), refusing))["shapes"] == "Disconnected: the cable is out"


def test_a_drifting_reference_is_seen_by_holography_and_not_by_an_anchor():
    drift = Drift(phase_drift_rad_per_s=50.0)
    assert "repeatability" in failed(Twin(drift=drift), demodulator=PhaseSteps())
    assert failed(Twin(drift=drift), demodulator=Anchor()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("rate_hz", 0.0), ("arms", frozenset({"waving"})), ("full_scale", 0), ("shape_cam", (0, 5)), ("opu_id", "")],
)
def test_claims_that_make_no_sense_fail(name, value):
    opu = Twin()
    setattr(opu, name, value)
    assert failed(opu)


def test_a_rate_that_the_exposure_forbids_fails():
    opu = MyOPU()
    opu.exposure_s = 1e-2
    assert failed(opu).keys() == {"timing"}


def test_a_dim_camera_fails_for_noise_or_light():
    assert failed(Twin(sensor=Sensor(read_noise_e=1000.0)))


def test_json_has_the_promised_form():
    found = check(Twin()).to_json()
    assert found["passed"] is True
    assert {"name", "passed", "value", "expected"} <= found["checks"][0].keys()
