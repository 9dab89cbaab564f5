"""What drivers raise and return: vendors' arrays simply work, everything else ends in a named error of one line."""

import math

import numpy as np
import pytest
import torch
from tests.opu.rig import rig

from odfa.demodulate import Anchor
from odfa.errors import ConfigError, Disconnected, FrameMismatch, OdfaError, OpuError
from odfa.flow import Frames
from odfa.keys import numpy_generator
from odfa.opu import AbstractOpu, Bench, Drift, Medium, MirrorLayout, Mirrors, Reference, Sensor, Twin, open_opu
from odfa.project import Guard, Optical
from odfa.project.calibrating import calibrate

COUNTS_FPQ = numpy_generator(1).integers(0, 4096, size=(6, 4, 5))
BITS_NFD = torch.ones(3, 2, 7, dtype=torch.bool)
FRAMES = Frames(bits_NFD=BITS_NFD, gain_NF=torch.ones(3, 2), encoder="x", arm="blocked")


class Own(AbstractOpu):
    """An OPU of one's own that answers what it is told to."""

    opu_id, shape_dmd, shape_cam, arms = "table-3", (10, 10), (20, 20), frozenset({"blocked"})
    rate_hz, power_w, exposure_s, full_scale = 1000.0, 30.0, 1e-4, 4095

    def __init__(self, answer=None, **stated) -> None:
        self.answer, self.closed = answer, 0
        for name, value in stated.items():
            setattr(self, name, value)

    def _run_hw(self, bits_FD, *, phase_S, arm, roi):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _close_hw(self):
        self.closed += 1


def big_endian_and_strided() -> np.ndarray:
    wide = np.zeros((6, 4, 10), dtype=">u2")
    wide[:, :, ::2] = COUNTS_FPQ
    return wide[:, :, ::2]


@pytest.mark.parametrize(
    "answer",
    [
        COUNTS_FPQ.astype(np.uint16),
        COUNTS_FPQ.astype(np.uint64),
        COUNTS_FPQ.astype(np.int16)[::-1, ::-1][::-1, ::-1],
        big_endian_and_strided(),
        torch.from_numpy(COUNTS_FPQ.astype(np.uint16)),
        torch.from_numpy(COUNTS_FPQ).to(torch.int32).transpose(1, 2).contiguous().transpose(1, 2),
        COUNTS_FPQ.tolist(),
        tuple(COUNTS_FPQ.astype(np.uint16)),
        [torch.from_numpy(frame_PQ) for frame_PQ in COUNTS_FPQ],
    ],
)
def test_what_vendors_return_simply_works(answer):
    capture = Own(answer).run(FRAMES, roi=(4, 5))
    capture.check()
    assert np.array_equal(capture.counts_NFPQ.flatten(0, 1).numpy(), COUNTS_FPQ)


def test_counts_are_copied_out_of_the_vendors_buffer():
    buffer = COUNTS_FPQ.astype(np.int32)
    counts_NFPQ = Own(buffer).run(FRAMES, roi=(4, 5)).counts_NFPQ
    buffer[:] = 7
    assert np.array_equal(counts_NFPQ.flatten(0, 1).numpy(), COUNTS_FPQ)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (None, OpuError, "table-3: None came back, expected integers"),
        ("frames", OpuError, "str 'frames' came back"),
        (object, OpuError, "type <class 'object'> came back"),
        (COUNTS_FPQ / 1.0, OpuError, r"float64 of shape \(6, 4, 5\) came back"),
        (np.full((6, 4, 5), np.nan), OpuError, "NaN or infinite in places"),
        (torch.full((6, 4, 5), math.nan), OpuError, r"torch.float32 of shape .*, NaN or infinite in places"),
        (torch.ones(6, 4, 5, dtype=torch.bool), OpuError, "torch.bool of shape"),
        (np.ma.masked_equal(COUNTS_FPQ, 0), OpuError, "a masked array"),
        ([[1, 2], [3]], OpuError, r"list \[\[1, 2\], \[3\]\] came back"),
        (torch.ones(6, 4, 5, dtype=torch.int32, device="meta"), OpuError, "torch.int32 of shape"),
        (torch.ones(6, 4, 5, dtype=torch.int32).to_sparse(), OpuError, "torch.int32 of shape"),
        (torch.full((6, 4, 5), math.nan).to_sparse(), OpuError, "torch.float32 of shape"),
        (torch.ones(6, 4, 5, dtype=torch.bfloat16), OpuError, "torch.bfloat16 of shape"),
        ([[["1"]]], OpuError, "<U1 of shape"),
        (COUNTS_FPQ[0], FrameMismatch, r"shape \(4, 5\) came back, expected frames of 4 x 5 pixels, three axes"),
        (COUNTS_FPQ[None], FrameMismatch, r"shape \(1, 6, 4, 5\)"),
        (COUNTS_FPQ.reshape(6, 20), FrameMismatch, r"shape \(6, 20\)"),
        (COUNTS_FPQ.transpose(0, 2, 1), FrameMismatch, r"shape \(6, 5, 4\)"),
        (COUNTS_FPQ[:5], FrameMismatch, "6 frames of 4 x 5 pixels asked for"),
        ([], FrameMismatch, r"counts of shape \(0, 4, 5\)"),
        (np.int64(3), OpuError, "int64 .* came back"),
        (np.array(3), FrameMismatch, r"shape \(1,\)"),
        (COUNTS_FPQ - 1000, OpuError, r"counts down to -\d+ came back"),
        (COUNTS_FPQ * 2, FrameMismatch, "from an OPU whose full_scale is 4095"),
        (np.full((6, 4, 5), 2**64 - 1, dtype=np.uint64), OpuError, r"counts beyond 2\^63"),
        (OSError("ALP_ERROR\n" * 80), Disconnected, "table-3: OSError: ALP_ERROR ALP_ERROR"),
        (KeyError(), Disconnected, "table-3: KeyError$"),
    ],
)
def test_odd_answers_are_named_in_one_line(answer, error, words):
    with pytest.raises(error, match=words) as caught:
        Own(answer).run(FRAMES, roi=(4, 5))
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    if isinstance(answer, Exception):
        assert caught.value.__cause__ is answer


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"shape_dmd": (100,)}, r"shape_dmd: expected \(rows, columns\), integers of at least 1, got \(100,\)"),
        ({"shape_cam": 5}, "shape_cam: expected"),
        ({"shape_cam": (2,)}, r"shape_cam: expected .* got \(2,\)"),
        ({"shape_cam": (4.0, 5)}, "shape_cam: expected"),
        ({"rate_hz": math.nan}, "rate_hz: expected a number"),
        ({"rate_hz": None}, "rate_hz: expected a number"),
        ({"power_w": -3.0}, r"power_w: expected a number in \(0, inf\), got -3.0"),
        ({"exposure_s": "1 ms"}, "exposure_s: expected a number"),
        ({"full_scale": 4095.0}, "full_scale: expected an integer"),
        ({"arms": "blocked"}, "arms: expected a set"),
        ({"arms": frozenset({"tilted", "blocked"})}, "carrier_cpp and pupil_cpp"),
        ({"opu_id": ""}, "Own states .* opu_id: expected a text"),
    ],
)
def test_what_an_opu_states_is_checked_before_the_first_frame(stated, words):
    opu = Own(COUNTS_FPQ, **stated)
    uses = [
        lambda: opu.run(FRAMES, roi=(4, 5)),
        lambda: calibrate(opu, num_inputs=3, num_modes=2),
        lambda: calibrate(opu, num_inputs=3, num_modes=2, demodulator=Anchor()),
    ]
    if stated.keys() <= {"opu_id", "shape_dmd", "shape_cam"}:
        uses.append(lambda: Optical(opu))  # what planning needs is asked for before the OPU is opened
    for use in uses:
        opu.close()
        with pytest.raises(OpuError, match=words):
            use()


def test_an_ability_that_is_missing_or_asks_broken_hardware_is_named():
    class Silent(Own):
        @property
        def exposure_s(self):
            raise OSError("unplugged")

    with pytest.raises(OpuError, match="exposure_s: OSError: unplugged"):
        Silent(COUNTS_FPQ).run(FRAMES, roi=(4, 5))

    class Bare(AbstractOpu):
        def _run_hw(self, bits_FD, *, phase_S, arm, roi):
            return None

    with pytest.raises(OpuError, match=r"Bare states .*opu_id is not stated; shape_dmd is not stated"):
        Bare().run(FRAMES, roi=(4, 5))


def test_a_driver_may_learn_its_abilities_when_it_opens():
    class Learns(Own):
        rate_hz = None

        def _open_hw(self):
            self.rate_hz, self.exposure_s = 500.0, 1e-3

    opu = Learns(COUNTS_FPQ, exposure_s=None)
    Optical(opu, demodulator=Anchor()).shaped(3, 4)
    assert opu.run(FRAMES, roi=(4, 5)).acquisition.exposure_s == 1e-3


@pytest.mark.parametrize("name", ["counts_per_intensity", "reference_amplitude", "frame_s"])
def test_scales_that_are_no_positive_numbers_are_refused(name):
    opu = Own(COUNTS_FPQ, arms=frozenset({"stepped"}), **{name: lambda *_arguments: math.nan})
    with pytest.raises(OpuError, match=f"{name} returned nan, expected a positive number|cannot"):
        opu.run(Frames(bits_NFD=BITS_NFD, gain_NF=torch.ones(3, 2), encoder="x"), roi=(4, 5))


def test_opening_that_fails_half_way_lets_go_of_the_hardware():
    class Half(Own):
        def _open_hw(self):
            raise OSError("USB")

    opu = Half()
    with pytest.raises(Disconnected, match="table-3: OSError: USB"):
        opu.open()
    assert opu.closed == 1
    opu.close()
    assert opu.closed == 1


def test_closing_trouble_is_named():
    class Stuck(Own):
        def _close_hw(self):
            raise RuntimeError("stuck")

    with pytest.raises(Disconnected, match="table-3: RuntimeError: stuck"), Stuck() as opu:
        opu.run


def bench(answer, **settings) -> Bench:
    """An open bench whose camera answers what it is told to from now on."""
    made, _ = rig(7, **settings)
    made.open()
    made._camera._grab_hw = lambda num_frames, timeout_s: answer(num_frames)
    return made


def ones(num_frames: int, *, kind=np.uint16, shape=(8, 8)) -> np.ndarray:
    return np.ones((num_frames, *shape), dtype=kind)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda n: None, OpuError, "_grab_hw returned a NoneType, expected counts and frame numbers"),
        (lambda n: ones(n)[:2], OpuError, "_grab_hw returned a ndarray"),
        (lambda n: (None, None), OpuError, "None came back"),
        (lambda n: (ones(n, kind=np.float32) * np.nan, None), OpuError, "NaN or infinite"),
        (lambda n: (ones(n)[0], None), FrameMismatch, "three axes even for one frame"),
        (lambda n: (ones(n, shape=(8, 9)), None), FrameMismatch, "expected frames of 8 x 8"),
        (lambda n: (ones(n), [0.5] * n), OpuError, "one integer a frame"),
        (lambda n: (ones(n), [None] * n), OpuError, "one integer a frame"),
        (lambda n: (ones(n), [math.nan] * n), OpuError, "one integer a frame"),
        (lambda n: (ones(n), list(range(n - 1))), OpuError, "one integer a frame"),
        (lambda n: (ones(n), 3), OpuError, "one integer a frame"),
        (lambda n: (ones(n), np.array(3)), OpuError, "one integer a frame"),
        (lambda n: (ones(n), torch.ones(n, 2)), OpuError, "one integer a frame"),
        (lambda n: (ones(n), np.arange(n) * 2), FrameMismatch, "gaps or repeats: 0 then 2"),
    ],
)
def test_odd_answers_of_a_camera_are_named_in_one_line(answer, error, words):
    opu = bench(answer, retries=0)
    with pytest.raises(error, match=words) as caught:
        opu.run(Frames(bits_NFD=BITS_NFD, gain_NF=torch.ones(3, 2), encoder="x"), roi=(8, 8))
    assert "\n" not in str(caught.value)


def test_a_camera_may_send_uint16_arrays_numbers_as_an_array_or_a_list_of_images():
    made, world = rig(7)
    reference, _ = rig(7)
    grab = made._camera._grab_hw

    def as_vendors_do(num_frames, timeout_s):
        counts_FPQ = grab(num_frames, timeout_s)[0].numpy().astype(np.uint16)
        return list(counts_FPQ) if world.shown % 2 else counts_FPQ, np.arange(len(counts_FPQ)) + 65_000

    made._camera._grab_hw = as_vendors_do
    frames = Frames(bits_NFD=BITS_NFD, gain_NF=torch.ones(3, 2), encoder="x")
    assert torch.equal(made.run(frames, roi=(8, 8)).counts_NFPQ, reference.run(frames, roi=(8, 8)).counts_NFPQ)


def part(name: str, **stated):
    """A part of a sound rig with other claims."""
    made = getattr(rig(7)[0], f"_{name}")
    for key, value in stated.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dmd": part("camera")}, "dmd: expected a modulator, got SimulatedCamera"),
        ({"camera": type(part("camera"))}, "camera: expected a camera, got the class SimulatedCamera"),
        ({"shifter": "piezo"}, "shifter: expected a shifter"),
        ({"dmd": part("dmd", shape_dmd=(24,))}, "SimulatedDmd: shape_dmd: expected"),
        ({"dmd": part("dmd", max_rate_hz=-1.0)}, "SimulatedDmd: max_rate_hz: expected"),
        ({"camera": part("camera", bits=8.0)}, "SimulatedCamera: bits: expected an integer"),
        ({"camera": part("camera", row_s=math.nan)}, "SimulatedCamera: row_s: expected a number"),
        ({"camera": part("camera", exposure_range_s=(1e-3, 1.0))}, "SimulatedCamera: exposure_s: expected a number"),
        ({"opu_id": ""}, "opu_id: expected a text"),
        ({"opu_id": None}, "opu_id: expected a text"),
        ({"power_w": -30.0}, "power_w: expected"),
        ({"power_w": math.nan}, "power_w: expected"),
        ({"chunk_frames": 2.5}, "chunk_frames: expected an integer"),
        ({"retries": True}, "retries: expected an integer"),
        ({"timeout_s": math.nan}, "timeout_s: expected a number"),
        ({"carrier_cpp": (0.3, math.nan), "pupil_cpp": 0.1}, "carrier_cpp: expected a number"),
        ({"carrier_cpp": (0.3, 0.3), "pupil_cpp": -0.1}, "pupil_cpp: expected a number"),
        ({"roi_dmd": (0, 0, 4)}, "roi_dmd: expected"),
    ],
)  # fmt: skip
def test_a_bench_refuses_parts_and_arguments_by_name(settings, words):
    usual = {"dmd": part("dmd"), "camera": part("camera"), "opu_id": "table-3"}
    with pytest.raises(ConfigError, match=words):
        Bench(**usual | settings)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Twin(power_w=-30.0), "power_w: expected"),
        (lambda: Twin(rate_hz=math.nan), "rate_hz: expected"),
        (lambda: Twin(name=""), "name: expected a text"),
        (lambda: Twin(name="two\nlines"), "name: expected a text in one line"),
        (lambda: Twin(-1), "seed: expected an integer"),
        (lambda: Twin(noise_seed=True), "noise_seed: expected an integer"),
        (lambda: Twin(shape_dmd=(912,)), "shape_dmd: expected"),
        (lambda: Twin(shape_cam=(0, 5)), "shape_cam: expected"),
        (lambda: Twin(sensor=Sensor), "sensor: expected a sensor, got the class Sensor"),
        (lambda: Twin(reference=Sensor()), "reference: expected a reference, got Sensor"),
        (lambda: Twin(drift={"phase_jitter_rad": 0.1}), "drift: expected a drift, got dict"),
        (lambda: Twin(matrix=[[1j]]), "matrix must be a complex"),
        (lambda: Twin(matrix=torch.full((2, 2), complex(math.nan, 0))), "matrix must be finite"),
        (lambda: Sensor(bits=8.0), "bits: expected an integer"),
        (lambda: Sensor(exposure_fill="0.3"), "exposure_fill: expected a finite number"),
        (lambda: Sensor(speckle_fill=math.nan), "speckle_fill: expected a finite number"),
        (lambda: Sensor(shot_noise="no"), "shot_noise: expected true or false"),
        (lambda: Reference(ratio=math.nan), "ratio: expected a finite number"),
        (lambda: Reference(ripple_px=math.inf), "ripple_px: expected a finite number"),
        (lambda: Reference(carrier_cpp=(0.3,)), "carrier_cpp: expected 2 values"),
        (lambda: Reference(carrier_cpp=(0.0, 0.3)), "carrier_cpp: expected no zero"),
        (lambda: Reference(carrier_cpp=0.3), "carrier_cpp: expected a list of values"),
        (lambda: Medium(memory_inputs="2"), "memory_inputs: expected a finite number"),
        (lambda: Medium(grain_px=math.nan), "grain_px: expected a finite number"),
        (lambda: Medium(dense_entries=-1), "dense_entries: expected an integer"),
        (lambda: Mirrors(leak="dark"), "leak: expected a finite number"),
        (lambda: Mirrors(seed=0.5), "seed: expected an integer"),
        (lambda: Drift(gain_jitter=math.nan), "gain_jitter: expected"),
        (lambda: open_opu(""), "opu: expected a text"),
        (lambda: open_opu(None), "opu: expected a text"),
        (lambda: MirrorLayout(shape_dmd=(3,), num_inputs=1), "shape_dmd: expected"),
        (lambda: MirrorLayout(shape_dmd=(3, 3), num_inputs=2.0), "num_inputs: expected an integer"),
        (lambda: Guard(warn_below="high"), "warn_below: expected a finite number"),
        (lambda: Guard(every=1.5), "every: expected an integer"),
        (lambda: Optical("twin"), "opu: expected an opu, got str 'twin'"),
        (lambda: Optical(Twin), "opu: expected an opu, got the class Twin"),
        (lambda: Optical(Twin(), guard=True), "guard: expected a guard, got bool True"),
        (lambda: calibrate(Twin(), num_inputs=0, num_modes=4), "num_inputs: expected an integer"),
        (lambda: calibrate("twin", num_inputs=1, num_modes=4), "opu: expected an opu"),
    ],
)
def test_arguments_are_refused_by_name(make, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert isinstance(caught.value, OdfaError)
    assert "\n" not in str(caught.value)


def test_numpys_integers_are_keys_and_sizes():
    twin = Twin(np.int64(3), shape_cam=(np.int32(40), 64), mirrors=Mirrors(seed=np.int64(1)))
    assert twin.opu_id == Twin(3, mirrors=Mirrors(seed=1)).opu_id
    optical = Optical(twin).shaped(5, 4).project(torch.eye(5))
    assert torch.equal(
        optical, Optical(Twin(3, shape_cam=(40, 64), mirrors=Mirrors(seed=1))).shaped(5, 4).project(torch.eye(5))
    )
