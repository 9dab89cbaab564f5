"""The twin and the demodulators on another device than the CPU: what lies where, who waits for it, and the numbers.

Without a GPU, a fake one: it knows shapes, types and devices, refuses to mix devices and to tell what a number is.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.far import DEVICE, FETCHED, one_accelerator
from torch._subclasses.fake_tensor import FakeTensorMode

from odfa import fourier
from odfa.demodulate import AbstractDemodulator, Anchor, Intensity, OffAxis, PhaseSteps, off_axis
from odfa.errors import FrameMismatch, Saturated
from odfa.flow import Acquisition, Capture, Frames, View
from odfa.keys import torch_generator
from odfa.opu import AbstractOpu, Drift, Medium, Mirrors, Reference, Sensor, Twin
from odfa.opu.base import _brightest
from odfa.opu.twin import twin as twin_file
from odfa.opu.twin.medium import Scatterer
from odfa.opu.twin.sensor import detect
from odfa.project import Guard
from odfa.project.path import LightPath

INPUTS, MODES = 40, 50
DEMODULATORS = [PhaseSteps(4), OffAxis(), OffAxis(flat_field=True), Anchor(), Intensity()]
EFFECTS: dict[str, Any] = {
    "reference": Reference(ripple=0.1),
    "mirrors": Mirrors(leak=0.05, stuck_off=0.05, stuck_on=0.05),
    "drift": Drift(
        phase_jitter_rad=0.05, phase_drift_rad_per_s=0.1, gain_jitter=0.02, decorrelation_s=100.0, warmup_rad=0.1
    ),
}
SILENT = Sensor(bits=16, read_noise_e=None, shot_noise=False)
TWINS = {
    "usual": {},
    "faint": {"sensor": Sensor(bits=12, full_well_e=2000.0, dark_e_per_s=1e4)},
    "unquantised": {"sensor": Sensor(bits=None, read_noise_e=None, shot_noise=False)},
    "every effect": {**EFFECTS, "medium": Medium(memory_inputs=2.0, grain_px=1.5)},
    "structured": {"medium": Medium(dense_entries=0)},
}
FAKE = "lazy"
"""A type of device that every build of torch knows enough of to make fake tensors on it (not so CUDA)."""
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def frames_on(device: torch.device | str, *, num_samples: int = 6) -> Frames:
    bits_NFD = torch.rand(num_samples, 2, INPUTS, generator=torch_generator(1)) < 0.4
    gain_NF = torch.tensor([1.0, -1.0]).expand(num_samples, 2).contiguous()
    return Frames(bits_NFD=bits_NFD.to(device), gain_NF=gain_NF.to(device), encoder="test")


VIEW = View(shape=OffAxis().roi(MODES, Twin().view), carrier_cpp=Twin().carrier_cpp, pupil_cpp=Twin().pupil_cpp)
"""What a tilted arm reads of the camera."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Tensors made under this mode may be on the device `FAKE`, though no machine has one."""
    mode, from_numpy, bins = FakeTensorMode(allow_non_fake_inputs=True), torch.from_numpy, fourier.pupil_bins(VIEW)
    kept = (fourier.pupil_index, off_axis._interference)
    monkeypatch.setattr(torch, "from_numpy", lambda array: mode.from_tensor(from_numpy(array)))
    monkeypatch.setattr(fourier, "pupil_bins", lambda view: tuple(mode.from_tensor(bins_M) for bins_M in bins))
    for function in kept:
        function.cache_clear()
    yield mode
    for function in kept:
        function.cache_clear()


def _capture(twin: Twin, demodulator: AbstractDemodulator, frames: Frames) -> Capture:
    """What `AbstractOpu.run` makes of the twin's counts, without looking at them."""
    roi = VIEW.shape if demodulator.arm == "tilted" else demodulator.roi(MODES, twin.view)
    counts_FPQ = twin._run_hw(frames.patterns_FD, phase_S=frames.phase_S, arm=frames.arm, roi=roi)
    shared = frames.shared_frames
    view = View(shape=roi, carrier_cpp=twin.carrier_cpp, pupil_cpp=twin.pupil_cpp)
    return Capture(
        counts_NFPQ=counts_FPQ[shared:].reshape(len(frames.bits_NFD), frames.frames_per_sample, *roi),
        shared_APQ=counts_FPQ[:shared] if shared else None,
        acquisition=Acquisition(
            opu_id="x", view=view, exposure_s=1.0, rate_hz=1.0, saturated_fraction=0.0, time_s=0.0,
            counts_per_intensity=1.0, counts_per_field=1.0,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("settings", TWINS.values(), ids=TWINS)
@pytest.mark.parametrize("demodulator", DEMODULATORS, ids=repr)
def test_nothing_leaves_the_device_and_nobody_waits_for_it(demodulator, settings, request):
    twin = Twin(**settings)
    with request.getfixturevalue("fake"):
        bits_NFD = torch.zeros(6, 2, INPUTS, dtype=torch.bool, device=FAKE)
        plain = Frames(bits_NFD=bits_NFD, gain_NF=torch.ones(6, 2, device=FAKE), encoder="test")
        frames = demodulator.expand(plain)
        for _ in range(2):
            capture = _capture(twin, demodulator, frames)
            field_NM = demodulator.demodulate(capture, frames).field_NM
            assert capture.counts_NFPQ.device.type == field_NM.device.type == FAKE
            assert len(field_NM) == 6
            assert field_NM.shape[1] >= MODES


def test_the_medium_is_kept_for_each_device():
    scatterer = Scatterer(0, INPUTS, Medium(), torch.float32)
    x_FD = torch.ones(2, INPUTS)
    first, _ = scatterer.propagate(x_FD, MODES)
    here = scatterer._dense[torch.device("cpu")]
    assert scatterer.propagate(x_FD.to("meta"), MODES)[0].is_meta
    assert scatterer._dense[torch.device("cpu")] is here
    assert torch.equal(scatterer.propagate(x_FD, MODES)[0], first)


def test_a_guard_corrects_a_field_on_any_device():
    watch = Guard().watch(INPUTS)
    watch._gain, watch._phase_rad = 1.1, 0.2
    assert watch.corrected(torch.ones(2, 3, dtype=torch.complex64, device="meta")).is_meta


class Instrument(AbstractOpu):
    """Answers from the CPU, and notes where its patterns lay."""

    opu_id, shape_dmd, shape_cam, arms = "table-3", (10, 10), (20, 20), frozenset({"blocked"})
    rate_hz, power_w, exposure_s, full_scale = 1000.0, 30.0, 1e-4, 255

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _run_hw(self, bits_FD, *, phase_S, arm, roi):
        self.seen.append(bits_FD.device.type)
        return torch.full((len(bits_FD), *roi), 9, dtype=torch.uint8)


def test_instruments_are_given_patterns_on_the_cpu(monkeypatch):
    # a device without numbers cannot be copied from: the copy is made by hand
    frames = Intensity().expand(frames_on("meta"))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: torch.ones(self.shape, dtype=self.dtype))
    opu = Instrument()
    capture = opu.run(frames, roi=(4, 5))
    assert opu.seen == ["cpu"]
    assert capture.counts_NFPQ.is_meta
    assert Intensity().demodulate(capture, frames).field_NM.is_meta
    assert not AbstractOpu.on_device
    assert Twin.on_device


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize("largest", [0, 99, 100, 101])
def test_the_brightest_count_and_how_many_have_it(dtype, largest):
    counts_FPQ = torch.tensor([[[0, largest, largest]]], dtype=dtype)
    found = _brightest(counts_FPQ, 100)
    assert found[0] == largest
    assert found[1] == (0 if largest < 100 else 2)


NOISY = {
    "usual": {},
    "faint": TWINS["faint"],
    "unquantised": {"sensor": Sensor(bits=None, exposure_fill=0.01)},
    "every effect": TWINS["every effect"],
}


@pytest.mark.parametrize("settings", NOISY.values(), ids=NOISY)
@pytest.mark.parametrize("demodulator", DEMODULATORS, ids=repr)
def test_counts_there_are_those_here_and_nobody_waits_for_them(demodulator, settings, monkeypatch):
    twin, frames = Twin(**settings), demodulator.expand(frames_on("cpu"))
    here = [_capture(twin, demodulator, frames).counts_NFPQ for _ in range(2)]
    with one_accelerator(monkeypatch):
        twin, frames = Twin(**settings), demodulator.expand(frames_on(DEVICE))
        FETCHED.clear()
        there = [_capture(twin, demodulator, frames).counts_NFPQ for _ in range(2)]
        assert FETCHED == []
        assert all(counts_NFPQ.device == DEVICE for counts_NFPQ in there)
        found = [counts_NFPQ.cpu() for counts_NFPQ in there]
    assert all(torch.equal(*pair) for pair in zip(found, here, strict=True))


@pytest.mark.parametrize("settings", NOISY.values(), ids=NOISY)
@pytest.mark.parametrize("demodulator", DEMODULATORS, ids=repr)
def test_counts_do_not_depend_on_how_frames_are_shared_among_blocks(demodulator, settings, monkeypatch):
    frames = demodulator.expand(frames_on("cpu"))
    here = _capture(Twin(**settings), demodulator, frames).counts_NFPQ
    for pixels in (1, 3000):
        monkeypatch.setattr(twin_file, "_BLOCK", pixels)
        monkeypatch.setattr(twin_file, "_TILTED_BLOCK", pixels)
        assert torch.equal(_capture(Twin(**settings), demodulator, frames).counts_NFPQ, here)


@needs_cuda
@pytest.mark.parametrize("demodulator", DEMODULATORS, ids=repr)
@pytest.mark.parametrize("effects", [{}, EFFECTS, TWINS["structured"], {"medium": Medium(memory_inputs=2.0)}], ids=str)
def test_without_noise_the_field_is_that_of_the_cpu(demodulator, effects):
    field_NM = {}
    for device in ("cpu", "cuda"):
        twin = Twin(sensor=Sensor(bits=None, read_noise_e=None, shot_noise=False, exposure_fill=1 / 64), **effects)
        twin.saturated_limit = 1.0
        path = LightPath(twin, demodulator, INPUTS, MODES)
        field_NM[device] = path.field(frames_on(device))
        assert field_NM[device].device.type == device
    difference_NM = field_NM["cuda"].cpu() - field_NM["cpu"]
    assert difference_NM.norm() < 1e-5 * field_NM["cpu"].norm()


@needs_cuda
@pytest.mark.parametrize("demodulator", DEMODULATORS, ids=repr)
def test_counts_in_float32_are_those_of_the_cpu_but_for_rounding(demodulator):
    counts_NFPQ = [
        _capture(Twin(sensor=SILENT), demodulator, demodulator.expand(frames_on(device))).counts_NFPQ.cpu()
        for device in ("cpu", "cuda")
    ]
    assert (counts_NFPQ[0] - counts_NFPQ[1]).abs().max() <= 2


@needs_cuda
@pytest.mark.parametrize("bits", [8, 12, 16, None])
@pytest.mark.parametrize("mean_e", [0.2, 3.0, 60.0, 99.0, 101.0, 2000.0])
def test_noise_is_that_of_the_cpu(mean_e, bits):
    sensor = Sensor(bits=bits, full_well_e=65_535.0, read_noise_e=3.0, dark_e_per_s=1e5)
    mean_RC = mean_e * torch.rand(400, 1001, generator=torch_generator(1))
    assert torch.equal(detect(mean_RC.cuda(), sensor, (4,), 3).cpu(), detect(mean_RC, sensor, (4,), 3))


@needs_cuda
def test_equal_seeds_repeat_on_the_device_and_a_saved_state_goes_on():
    frames, twin = Intensity().expand(frames_on("cuda")), Twin(noise_seed=3)
    first, second = (twin.run(frames, roi=(4, 50)).counts_NFPQ for _ in range(2))
    again = Twin(noise_seed=3)
    assert torch.equal(again.run(frames, roi=(4, 50)).counts_NFPQ, first)
    resumed = Twin(noise_seed=3)
    resumed.load_state_dict(again.state_dict())
    assert torch.equal(resumed.run(frames, roi=(4, 50)).counts_NFPQ, second)
    assert not torch.equal(first, second)


@needs_cuda
def test_light_is_checked_on_the_device():
    frames = Intensity().expand(frames_on("cuda"))
    with pytest.raises(Saturated):
        Twin(sensor=Sensor(speckle_fill=1.0)).run(frames, roi=(4, 50))
    twin = Twin()
    capture = twin.run(frames, roi=(4, 50))
    share = float((capture.counts_NFPQ == 255).double().mean())
    assert capture.acquisition.saturated_fraction == pytest.approx(share)
    twin.full_scale = 100
    with pytest.raises(FrameMismatch):
        twin.run(frames, roi=(4, 50))


@needs_cuda
def test_an_instrument_answers_a_device_by_the_cpu():
    frames, opu = Intensity().expand(frames_on("cuda")), Instrument()
    capture = opu.run(frames, roi=(4, 5))
    assert opu.seen == ["cpu"]
    assert Intensity().demodulate(capture, frames).field_NM.is_cuda


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_autocast_does_not_reach_the_light(device):
    fields_NM = []
    for enabled in (False, True):
        path = LightPath(Twin(sensor=SILENT), PhaseSteps(4), INPUTS, MODES)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=enabled):
            fields_NM.append(path.field(frames_on(device)))
    assert torch.equal(*fields_NM)
