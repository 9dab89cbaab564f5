"""Drivers over kept libraries: against slmsuite's simulated hardware, stand-ins of the vendors' calls, and nothing."""

import logging
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from odfa.demodulate import Anchor
from odfa.device.drivers.genicam import GenICamCamera
from odfa.device.drivers.slmsuite import SlmsuiteDevice
from odfa.device.drivers.vialux import VialuxDmd
from odfa.errors import ConfigError, Disconnected, MissingExtra
from odfa.keys import torch_generator
from odfa.project.conformance import check


class AlpStandIn:
    """The calls of ALP4lib that the driver makes, written down."""

    nSizeX, nSizeY = 8, 6

    def __init__(self, version: str, libDir: str | None) -> None:
        self.calls: list[str] = []
        self.images: np.ndarray | None = None

    def __getattr__(self, name: str) -> Any:
        return lambda **arguments: self.calls.append(name + "".join(f" {k}={v}" for k, v in arguments.items()))

    def SeqPut(self, imgData: np.ndarray) -> None:
        self.calls.append("SeqPut")
        self.images = np.array(imgData).reshape(-1, self.nSizeY, self.nSizeX)


def test_vialux_plays_sequences(monkeypatch):
    monkeypatch.setitem(sys.modules, "ALP4", types.SimpleNamespace(ALP4=AlpStandIn))
    dmd = VialuxDmd((6, 8))
    dmd.open()
    alp = dmd._alp
    mirrors_FYX = torch.rand(5, 6, 8, generator=torch_generator(0)) < 0.5
    dmd.play(mirrors_FYX, 2000.0)
    assert np.array_equal(alp.images, mirrors_FYX.numpy() * 255)
    assert alp.calls == [
        "Initialize",
        "SeqAlloc nbImg=5 bitDepth=1",
        "SeqPut",
        "SetTiming pictureTime=500",
        "Run loop=False",
    ]
    dmd.play(mirrors_FYX[:2], 1000.0)
    assert alp.calls[5:8] == ["Halt", "FreeSeq", "SeqAlloc nbImg=2 bitDepth=1"]
    dmd.close()
    assert alp.calls[-3:] == ["Halt", "FreeSeq", "Free"]
    with pytest.raises(ConfigError, match="expected a rate up to"):
        dmd.play(mirrors_FYX, 1e6)
    with pytest.raises(Disconnected, match="has 6 x 8 mirrors, expected"):
        VialuxDmd((6, 9)).open()


class AcquirerStandIn:
    """The calls of a harvesters image acquirer that the driver makes."""

    def __init__(self) -> None:
        names = ("PixelFormat", "TriggerSelector", "TriggerMode", "TriggerSource", "ExposureMode", "ExposureTime")
        names += ("Height", "Width")
        nodes = types.SimpleNamespace(**{name: types.SimpleNamespace(value=None) for name in names})
        self.remote_device = types.SimpleNamespace(node_map=nodes)
        self.running, self.sent, self.available, self.destroyed = False, 0, 3, False

    def is_acquiring(self) -> bool:
        return self.running

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def destroy(self) -> None:
        self.destroyed = True

    def try_fetch(self, timeout: float) -> Any:
        if self.sent == self.available:
            return None
        self.sent += 1
        nodes = self.remote_device.node_map
        height, width = nodes.Height.value, nodes.Width.value
        data = np.full(height * width, self.sent, dtype=np.uint16)
        component = types.SimpleNamespace(data=data, height=height, width=width)
        buffer = types.SimpleNamespace(payload=types.SimpleNamespace(components=[component]))

        class Context:
            payload = buffer.payload

            def __enter__(self):
                return self

            def __exit__(self, *_exc):
                data[:] = 9999  # the buffer goes back to the driver and is filled anew

        return Context()


def test_genicam_grabs_triggered_frames(monkeypatch):
    acquirer = AcquirerStandIn()

    class Harvester:
        def add_file(self, path, check_existence):
            assert path == "vendor.cti"

        def update(self):
            pass

        def create(self, key):
            assert key == {"serial_number": "42"}
            return acquirer

        def reset(self):
            pass

    monkeypatch.setitem(sys.modules, "harvesters.core", types.SimpleNamespace(Harvester=Harvester))
    camera = GenICamCamera("vendor.cti", (20, 30), bits=12, serial="42")
    camera.open()
    camera.set_exposure(1e-3)
    nodes = acquirer.remote_device.node_map
    assert (nodes.PixelFormat.value, nodes.TriggerMode.value, nodes.ExposureTime.value) == ("Mono12", "On", 1000.0)
    camera.arm(3, (4, 5))
    counts_FPQ = camera.grab(3, 1.0)
    assert counts_FPQ.shape == (3, 4, 5)
    assert counts_FPQ[:, 0, 0].tolist() == [1, 2, 3]  # copied before the buffers went back
    camera.arm(2, (4, 5))
    assert camera.grab(2, 0.01).shape == (0, 4, 5)  # the time is up: fewer frames, none invented
    camera.close()
    assert acquirer.destroyed


@pytest.mark.parametrize(
    ("open_", "module", "words"),
    [
        (lambda: VialuxDmd((6, 8)).open(), "ALP4", r'needs ALP4; install it: pip install "odfa\[vialux\]"'),
        (lambda: GenICamCamera("x.cti", (4, 4)).open(), "harvesters.core", r'"odfa\[genicam\]"'),
    ],
)
def test_without_its_library_a_driver_says_so_in_one_line(monkeypatch, open_, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=words) as caught:
        open_()
    assert "\n" not in str(caught.value)


def test_a_missing_vendor_library_is_not_a_missing_package(monkeypatch):
    def fail(version, libDir):
        raise OSError("libalp.so: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "ALP4", types.SimpleNamespace(ALP4=fail))
    with pytest.raises(MissingExtra, match=r"vendor's ALP-4.3 library \(libalp.so.*library_dir"):
        VialuxDmd((6, 8)).open()


@pytest.fixture
def simulated():
    """slmsuite's own simulated modulator and camera, the modulator's far field on the camera."""
    logging.disable(logging.CRITICAL)
    from slmsuite.hardware.cameras.simulated import SimulatedCamera
    from slmsuite.hardware.slms.simulated import SimulatedSLM

    slm = SimulatedSLM((64, 64), pitch_um=(8, 8))
    camera = SimulatedCamera(slm, resolution=(64, 64))
    camera.set_exposure(12.0)
    yield slm, camera
    logging.disable(logging.NOTSET)


def diffuser() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 2 * np.pi, (64, 64))


@pytest.mark.filterwarnings("ignore")
def test_slmsuites_simulated_hardware_is_a_device_that_conforms(simulated):
    device = SlmsuiteDevice(*simulated, device_id="slmsuite far field", grid=(8, 8), base_phase_rad=diffuser())
    report = check(device, num_inputs=40, num_modes=16)
    assert report.readout == Anchor().name
    assert [(c.name, c.reason) for c in report.checks if not c.passed] == []


@pytest.mark.filterwarnings("ignore")
def test_slmsuite_shows_the_patterns_and_crops_the_image(simulated):
    slm, camera = simulated
    device = SlmsuiteDevice(slm, camera, device_id="x", grid=(8, 8), base_phase_rad=diffuser())
    bits_FD = torch.rand(3, 64, generator=torch_generator(0)) < 0.5
    counts_FPQ = device._run_hw(bits_FD, phase_S=(), arm="blocked", roi=(10, 20))
    for bits_D, counts_PQ in zip(bits_FD, counts_FPQ, strict=True):
        phase_YX = diffuser()
        for d in range(64):
            row, col = divmod(d, 8)
            for y in range(8 * row, 8 * row + 8):
                for x in range(8 * col, 8 * col + 8):
                    phase_YX[y, x] += 0.0 if bits_D[d] else np.pi * ((x + y) % 2)
        slm.set_phase(phase_YX)
        assert np.array_equal(counts_PQ.numpy(), camera.get_image()[:10, :20])


@pytest.mark.filterwarnings("ignore")
def test_slmsuite_errors_are_named_and_bad_grids_refused(simulated):
    slm, camera = simulated
    with pytest.raises(ConfigError, match="does not divide"):
        SlmsuiteDevice(slm, camera, device_id="x", grid=(7, 8))
    with pytest.raises(ConfigError, match="finite and of shape"):
        SlmsuiteDevice(slm, camera, device_id="x", base_phase_rad=np.zeros((3, 3)))
    device = SlmsuiteDevice(
        slm, types.SimpleNamespace(shape=(64, 64), bitdepth=8, get_exposure=lambda: 1.0), device_id="x"
    )
    with pytest.raises(Disconnected, match="x: AttributeError"):
        device._run_hw(torch.ones(1, 16, dtype=torch.bool), phase_S=(), arm="blocked", roi=(8, 8))
