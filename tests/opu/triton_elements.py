"""Triton's kernel of electrons in the interpreter: run by `test_electrons` in a process with TRITON_INTERPRET=1."""

import os

import pytest
import torch
from tests.opu.test_electrons import CAMERAS, FIRST, KEY, MEANS, SHAPES, speckle

from odfa.demodulate import Intensity, OffAxis, PhaseSteps
from odfa.draws import draws
from odfa.flow import Frames
from odfa.opu import Drift, Sensor, Twin
from odfa.opu.twin.electrons import accelerated, counting
from odfa.opu.twin.sensor import detect

assert os.environ.get("TRITON_INTERPRET") == "1", "expected TRITON_INTERPRET=1; run test_electrons.py"


NOISY = {name: sensor for name, sensor in CAMERAS.items() if "no noise" not in name}


@pytest.mark.parametrize("sensor", NOISY.values(), ids=NOISY)
def test_counts_are_those_of_the_processor(sensor, monkeypatch):
    monkeypatch.setattr(accelerated, "COUNTERS", 128)
    dtype = torch.float64 if sensor.bits == 16 else torch.float32
    cases = [speckle(shape, mean_e, dtype) for shape, mean_e in zip(SHAPES[1:-1], MEANS[1:], strict=True)]
    here = [detect(mean_RC, sensor, KEY, FIRST) for mean_RC in cases]
    monkeypatch.setattr(counting, "compiler_on", lambda _device: "triton")
    for mean_RC, counts_RC in zip(cases, here, strict=True):
        assert torch.equal(detect(mean_RC, sensor, KEY, FIRST), counts_RC)


@pytest.mark.parametrize("demodulator", [PhaseSteps(4), OffAxis(), Intensity()], ids=repr)
def test_captures_are_those_of_the_processor(demodulator, monkeypatch):
    bits_NFD = torch.rand(3, 1, 40, generator=torch.Generator().manual_seed(1)) < 0.4
    frames = demodulator.expand(Frames(bits_NFD=bits_NFD, gain_NF=torch.ones(3, 1), encoder="test"))

    def captured() -> torch.Tensor:
        twin = Twin(sensor=Sensor(bits=12), drift=Drift(phase_jitter_rad=0.05, gain_jitter=0.02))
        return twin.run(frames, roi=demodulator.roi(50, twin.view)).counts_NFPQ

    here = captured()
    for module in (draws, counting):
        monkeypatch.setattr(module, "compiler_on", lambda _device: "triton")
    assert torch.equal(captured(), here)
