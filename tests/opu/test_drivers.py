"""Drivers over kept libraries: against slmsuite's simulated hardware, stand-ins of the vendors' calls, and nothing."""

import logging
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from odfa.demodulate import Anchor
from odfa.errors import ConfigError, Disconnected, MissingExtra, OpuError
from odfa.flow import Frames
from odfa.keys import torch_generator
from odfa.opu.drivers.genicam import GenICamCamera
from odfa.opu.drivers.slmsuite import SlmsuiteOpu
from odfa.opu.drivers.vialux import VialuxDmd
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
    wrong = VialuxDmd((6, 9))
    with pytest.raises(ConfigError, match=r"has 6 x 8 mirrors, shape_dmd says \(6, 9\)"):
        wrong.open()
    assert wrong._alp is None  # the board was let go of


class Node:
    """A feature as GenApi has it: a value within limits and steps, perhaps one that the camera keeps."""

    def __init__(
        self, value: Any, least: float = 0, most: float = 0, inc: int = 1, *, kept: Any = None, mode: int = 4,
        offset: "Node | None" = None,
    ) -> None:  # fmt: skip
        self._value, self.min, self._most, self.inc = value, least, most, inc
        self._kept, self._mode, self._offset = kept, mode, offset

    def __getattr__(self, name: str) -> Any:
        if name != "max":
            raise AttributeError(name)
        return self._most - (self._offset.value if self._offset else 0)  # an offset that is not zero limits the size

    def get_access_mode(self) -> int:
        return self._mode

    @property
    def value(self) -> Any:
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        if self._mode < 4:
            raise RuntimeError("AccessException: node is not writable")
        if self.max and not (self.min <= value <= self.max and (value - self.min) % self.inc == 0):
            raise RuntimeError(f"OutOfRangeException: {value} not in {self.min} .. {self.max} by {self.inc}")
        self._value = value if self._kept is None else self._kept


def node_map(**changed: Node) -> types.SimpleNamespace:
    """A camera after another session: everything automatic, and a region in the middle of the sensor."""
    offset_x, offset_y = Node(16, 0, 32, 16), Node(4, 0, 16, 2)
    nodes = {
        "PixelFormat": Node("Mono8"), "TriggerSelector": Node("AcquisitionStart"), "TriggerMode": Node("Off"),
        "TriggerSource": Node("Software"), "ExposureMode": Node("TriggerWidth"),
        "ExposureTime": Node(5e4, 20.0, 1e5, 1), "ExposureAuto": Node("Continuous"), "GainAuto": Node("Continuous"),
        "GammaEnable": Node(True), "BinningHorizontal": Node(1, mode=3), "AcquisitionMode": Node("SingleFrame"),
        "BlackLevelAuto": Node("Continuous", mode=1),
        "OffsetX": offset_x, "OffsetY": offset_y,
        "Width": Node(32, 16, 64, 16, offset=offset_x), "Height": Node(20, 8, 40, 2, offset=offset_y),
    }  # fmt: skip
    return types.SimpleNamespace(**nodes | changed)


class AcquirerStandIn:
    """The calls of a harvesters image acquirer in use here; frames hold row * 100 + column + 1000 * number."""

    def __init__(self, nodes: types.SimpleNamespace | None = None, padding: int = 0) -> None:
        self.remote_device = types.SimpleNamespace(node_map=nodes or node_map())
        self.running, self.sent, self.available, self.destroyed, self.padding = False, 0, 3, False, padding

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
        image = np.add.outer(100 * np.arange(height), np.arange(width)) + 1000 * self.sent
        data = np.pad(image, ((0, 0), (0, self.padding)), constant_values=7).astype(np.uint16).ravel()
        component = types.SimpleNamespace(data=data, height=height, width=width)
        buffer = types.SimpleNamespace(payload=types.SimpleNamespace(components=[component]))

        class Context:
            payload = buffer.payload

            def __enter__(self):
                return self

            def __exit__(self, *_exc):
                data[:] = 9999  # the buffer goes back to the driver and is filled anew

        return Context()


class HarvesterStandIn:
    """Finds one camera."""

    def __init__(self, acquirer: AcquirerStandIn) -> None:
        self.acquirer, self.resets = acquirer, 0

    def add_file(self, path, check_existence):
        assert path == "vendor.cti"

    def update(self):
        pass

    def create(self, key):
        assert key == {"serial_number": "42"}
        return self.acquirer

    def reset(self):
        self.resets += 1


@pytest.fixture
def genicam(monkeypatch):
    """A camera over stand-ins of the node map and of its buffers; not open yet."""

    def make(acquirer: AcquirerStandIn, shape_cam=(40, 64), **settings) -> GenICamCamera:
        harvester = HarvesterStandIn(acquirer)
        monkeypatch.setitem(sys.modules, "harvesters.core", types.SimpleNamespace(Harvester=lambda: harvester))
        return GenICamCamera("vendor.cti", shape_cam, bits=12, serial="42", **settings)

    return make


def test_genicam_grabs_triggered_frames(genicam):
    acquirer = AcquirerStandIn()
    camera = genicam(acquirer)
    camera.open()
    camera.set_exposure(1e-3)
    nodes = acquirer.remote_device.node_map
    assert (nodes.PixelFormat.value, nodes.TriggerMode.value, nodes.ExposureTime.value) == ("Mono12", "On", 1000.0)
    camera.arm(3, (4, 5))
    counts_FPQ = camera.grab(3, 1.0)
    assert counts_FPQ.shape == (3, 4, 5)
    assert counts_FPQ[:, 0, 0].tolist() == [1000, 2000, 3000]  # copied before the buffers went back
    camera.arm(2, (4, 5))
    assert camera.grab(2, 0.01).shape == (0, 4, 5)  # the time is up: fewer frames, none invented
    camera.close()
    assert acquirer.destroyed


def test_genicam_switches_off_what_a_camera_does_by_itself(genicam):
    acquirer = AcquirerStandIn()
    genicam(acquirer).open()
    nodes = acquirer.remote_device.node_map
    assert (nodes.ExposureAuto.value, nodes.GainAuto.value, nodes.GammaEnable.value) == ("Off", "Off", False)
    assert (nodes.AcquisitionMode.value, nodes.ExposureMode.value) == ("Continuous", "Timed")
    assert (nodes.OffsetX.value, nodes.OffsetY.value) == (0, 0)
    assert nodes.ExposureTime.value == 400.0


def test_genicam_states_the_exposure_that_the_camera_took(genicam):
    camera = genicam(AcquirerStandIn(node_map(ExposureTime=Node(5e4, 1e3, 1e5, kept=1040.0))), exposure_s=1e-3)
    camera.open()
    assert camera.exposure_s == pytest.approx(1.04e-3)
    assert camera.exposure_range_s == pytest.approx((1e-3, 0.1))


@pytest.mark.parametrize("name", ["ExposureAuto", "GainAuto"])
def test_genicam_refuses_a_camera_that_stays_automatic(genicam, name):
    camera = genicam(acquirer := AcquirerStandIn(node_map(**{name: Node("Continuous", kept="Continuous")})))
    with pytest.raises(OpuError, match=f"keeps {name} = Continuous, Off was asked for"):
        camera.open()
    assert acquirer.destroyed  # the camera was let go of


@pytest.mark.parametrize(
    ("roi", "padding", "size"),
    [
        ((1, 1), 0, (8, 16)),
        ((8, 16), 0, (8, 16)),
        ((9, 17), 0, (10, 32)),
        ((9, 17), 12, (10, 32)),
        ((40, 64), 8, (40, 64)),
    ],
)
def test_genicam_widens_the_region_and_crops_the_frames(genicam, roi, padding, size):
    """Width from 16 in steps of 16, height from 8 in steps of 2; rows padded to whatever the producer likes."""
    camera = genicam(acquirer := AcquirerStandIn(padding=padding))
    camera.open()
    camera.arm(2, roi)
    nodes = acquirer.remote_device.node_map
    assert (nodes.Height.value, nodes.Width.value) == size
    expected_PQ = np.add.outer(100 * np.arange(roi[0]), np.arange(roi[1]))
    for number, counts_PQ in enumerate(camera._grab_hw(2, 1.0)[0], 1):
        assert np.array_equal(counts_PQ, expected_PQ + 1000 * number)


@pytest.mark.parametrize(
    ("changed", "shape_cam", "words"),
    [
        ({}, (41, 64), r"has 40 x 64 pixels, shape_cam says \(41, 64\)"),
        ({"ExposureTime": Node(5e4, 1e3, 1e5)}, (40, 64), "between 0.001 and 0.1 s, got 0.0004"),
        ({"ExposureTime": Node(5e4, 20.0, 1e5, kept=5e4)}, (40, 64), r"took an exposure of 0.0[45]9*6? s, 0.0004 s"),
        ({"ExposureAuto": Node("Continuous", mode=3)}, (40, 64), "AccessException"),
        ({"TriggerMode": Node("Off", mode=1)}, (40, 64), "no feature TriggerMode"),
    ],
)
def test_genicam_says_what_does_not_fit(genicam, changed, shape_cam, words):
    with pytest.raises((ConfigError, OpuError), match=words):
        genicam(AcquirerStandIn(node_map(**changed)), shape_cam).open()


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
    slm.settle_time_s = 0.0
    yield slm, camera
    logging.disable(logging.NOTSET)


def diffuser() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 2 * np.pi, (64, 64))


@pytest.mark.filterwarnings("ignore")
def test_slmsuites_simulated_hardware_is_an_opu_that_conforms(simulated):
    opu = SlmsuiteOpu(*simulated, opu_id="slmsuite far field", grid=(8, 8), base_phase_rad=diffuser())
    report = check(opu, num_inputs=40, num_modes=16)
    assert report.demodulator == Anchor().name
    assert [(c.name, c.reason) for c in report.checks if not c.passed] == []


@pytest.mark.filterwarnings("ignore")
def test_slmsuite_shows_the_patterns_and_crops_the_image(simulated):
    slm, camera = simulated
    opu = SlmsuiteOpu(slm, camera, opu_id="x", grid=(8, 8), base_phase_rad=diffuser())
    bits_FD = torch.rand(3, 64, generator=torch_generator(0)) < 0.5
    counts_FPQ = opu._run_hw(bits_FD, phase_S=(), arm="blocked", roi=(10, 20))
    for bits_D, counts_PQ in zip(bits_FD, counts_FPQ, strict=True):
        phase_YX = diffuser()
        for d in range(64):
            row, col = divmod(d, 8)
            for y in range(8 * row, 8 * row + 8):
                for x in range(8 * col, 8 * col + 8):
                    phase_YX[y, x] += 0.0 if bits_D[d] else np.pi * ((x + y) % 2)
        slm.set_phase(phase_YX)
        assert np.array_equal(counts_PQ, camera.get_image()[:10, :20])


@pytest.mark.filterwarnings("ignore")
def test_slmsuite_errors_are_named_and_bad_grids_refused(simulated):
    slm, camera = simulated
    with pytest.raises(ConfigError, match="does not divide"):
        SlmsuiteOpu(slm, camera, opu_id="x", grid=(7, 8))
    with pytest.raises(ConfigError, match="finite and of shape"):
        SlmsuiteOpu(slm, camera, opu_id="x", base_phase_rad=np.zeros((3, 3)))
    with pytest.raises(ConfigError, match="opu_id: expected a text"):
        SlmsuiteOpu(slm, camera, opu_id="")
    silent = types.SimpleNamespace(shape=(64, 64), bitdepth=8, get_exposure=lambda: 1.0)
    opu = SlmsuiteOpu(slm, silent, opu_id="x")
    bits_NFD = torch.ones(1, 1, 16, dtype=torch.bool)
    with pytest.raises(Disconnected, match=r"x: AttributeError: .*flush"):
        opu.run(Frames(bits_NFD=bits_NFD, gain_NF=torch.ones(1, 1), encoder="x", arm="blocked"), roi=(8, 8))


@pytest.mark.filterwarnings("ignore")
def test_slmsuite_waits_for_the_modulator_and_takes_raw_fresh_frames(simulated, monkeypatch):
    slm, camera = simulated
    calls: list[Any] = []
    monkeypatch.setattr(slm, "set_phase", lambda _phase, settle: calls.append(("set_phase", settle)))
    monkeypatch.setattr(camera, "flush", lambda: calls.append("flush"))
    monkeypatch.setattr(
        camera, "get_image", lambda **settings: calls.append(settings) or np.full((64, 64), 500, dtype=np.uint16)
    )
    opu = SlmsuiteOpu(slm, camera, opu_id="x", grid=(8, 8), rate_hz=1000.0)
    opu._run_hw(torch.ones(1, 64, dtype=torch.bool), phase_S=(), arm="blocked", roi=(8, 8))
    assert calls == [("set_phase", True), "flush", {"timeout_s": 1.0, "averaging": False, "hdr": False}]
    slm.settle_time_s = 0.2
    assert opu.frame_s((8, 8)) == pytest.approx(12.2)
