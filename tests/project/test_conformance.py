"""The conformance suite: sound devices pass, and each broken one fails for its own reason."""

import ast
from pathlib import Path

import pytest
import torch
from tests.device.rig import rig

import odfa.device.template
from odfa.demodulate import Anchor, OffAxis, PhaseSteps
from odfa.device import AbstractDevice, Drift, Sensor, Twin
from odfa.device.template import MyOPU
from odfa.errors import Disconnected
from odfa.project.conformance import check


class Broken(AbstractDevice):
    """A twin behind a fault."""

    def __init__(self, twin: Twin, fault) -> None:
        self._twin, self._fault = twin, fault
        self.device_id, self.shape_dmd, self.shape_cam = "broken", twin.shape_dmd, twin.shape_cam
        self.rate_hz, self.power_w, self.exposure_s = twin.rate_hz, twin.power_w, twin.exposure_s
        self.full_scale, self.arms = twin.full_scale, frozenset({"stepped"})

    def counts_per_intensity(self, num_inputs, arm):
        return self._twin.counts_per_intensity(num_inputs, arm)

    def reference_amplitude(self, num_inputs):
        return self._twin.reference_amplitude(num_inputs)

    def _run_hw(self, bits_FD, *, phase_S, arm, roi):
        return self._fault(self._twin._run_hw(bits_FD, phase_S=phase_S, arm=arm, roi=roi), self._twin)


def failed(device: AbstractDevice, **settings: object) -> dict[str, str]:
    report = check(device, **settings)
    assert report.passed == (not any(not c.passed for c in report.checks))
    assert all(c.reason for c in report.checks if not c.passed)
    assert all("\n" not in c.reason for c in report.checks)
    return {c.name: c.reason for c in report.checks if not c.passed}


@pytest.mark.parametrize("readout", [PhaseSteps(4), PhaseSteps(3), OffAxis(), Anchor()], ids=repr)
@pytest.mark.parametrize("twin", [Twin(), Twin.ideal(), Twin.preset("opu-2021", seed=3)], ids=repr)
def test_twins_pass_with_every_read_out(twin, readout):
    assert failed(twin, demodulator=readout) == {}


@pytest.mark.parametrize("arm", ["stepped", "tilted", "blocked"])
def test_a_bench_passes(arm):
    inputs = 40 + round(0.3 * 40) * (arm == "blocked")
    assert failed(rig(inputs, arm=arm)[0], num_inputs=40, num_modes=32) == {}


def test_the_template_passes_and_is_short():
    assert failed(MyOPU()) == {}
    tree = ast.parse(Path(odfa.device.template.__file__).read_text(encoding="utf-8"))
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
def test_a_broken_device_fails_where_it_is_broken(fault, names):
    assert names <= failed(Broken(Twin(), fault)).keys()


def test_errors_become_reasons():
    assert failed(Broken(Twin(), refusing))["shapes"] == "Disconnected: the cable is out"


def test_a_drifting_reference_is_seen_by_holography_and_not_by_an_anchor():
    drift = Drift(phase_drift_rad_per_s=50.0)
    assert "repeatability" in failed(Twin(drift=drift), demodulator=PhaseSteps())
    assert failed(Twin(drift=drift), demodulator=Anchor()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("rate_hz", 0.0), ("arms", frozenset({"waving"})), ("full_scale", 0), ("shape_cam", (0, 5)), ("device_id", "")],
)
def test_claims_that_make_no_sense_fail(name, value):
    device = Twin()
    setattr(device, name, value)
    assert failed(device)


def test_a_rate_that_the_exposure_forbids_fails():
    device = MyOPU()
    device.exposure_s = 1e-2
    assert failed(device).keys() == {"timing"}


def test_a_dim_camera_fails_for_noise_or_light():
    assert failed(Twin(sensor=Sensor(read_noise_e=1000.0)))


def test_json_has_the_promised_form():
    found = check(Twin()).to_json()
    assert found["passed"] is True
    assert {"name", "passed", "value", "expected"} <= found["checks"][0].keys()
