"""The bench over a simulated vendor SDK that misbehaves on purpose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.opu.rig import SHAPE_CAM, SHAPE_DMD, Fault, rig

from odfa.demodulate import Anchor, OffAxis, PhaseSteps
from odfa.encode import Ternary
from odfa.errors import ConfigError, Dark, Disconnected, FrameMismatch, Incompatible, Saturated
from odfa.keys import torch_generator
from odfa.opu import MirrorLayout, Sensor, Twin
from odfa.opu.bench import sync
from odfa.project import Optical

D, M = 30, 80
DEMODULATORS = {"stepped": PhaseSteps(4), "tilted": OffAxis(), "blocked": Anchor()}


def rows(num_rows: int = 20) -> torch.Tensor:
    return (torch.randn(num_rows, D, generator=torch_generator(0)) > 0.5).float() * 2 - 1


def project(*faults: Fault, arm: str = "stepped", world: dict | None = None, **settings: object):
    demodulator = DEMODULATORS[arm]
    bench, shared = rig(demodulator.inputs(D), *faults, arm=arm, world=world, **settings)
    p_NM = Optical(bench, encoder=Ternary("best_cosine"), demodulator=demodulator).shaped(D, M).project(rows())
    return p_NM, bench, shared


def agreement(a_NM: torch.Tensor, b_NM: torch.Tensor) -> float:
    return (torch.sum(a_NM * b_NM) / (a_NM.norm() * b_NM.norm())).item()


@settings(deadline=None)
@given(rows=st.integers(1, 20), cols=st.integers(1, 20), data=st.data())
def test_layout_draws_macro_pixels_that_it_reads_back(rows, cols, data):
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    top, left = data.draw(st.integers(0, rows - height)), data.draw(st.integers(0, cols - width))
    num_inputs = data.draw(st.integers(1, height * width))
    layout = MirrorLayout(shape_dmd=(rows, cols), num_inputs=num_inputs, roi_dmd=(top, left, height, width))
    bits_FD = torch.rand(4, num_inputs, generator=torch_generator(rows)) < 0.5
    mirrors_FYX = layout.draw(bits_FD)
    assert torch.equal(layout.read(mirrors_FYX), bits_FD)
    per_input = height * width // num_inputs
    assert torch.equal(mirrors_FYX.sum((1, 2)), bits_FD.sum(1) * per_input)
    for y in range(rows):
        for x in range(cols):
            place = (y - top) * width + x - left
            inside = top <= y < top + height and left <= x < left + width and place < num_inputs * per_input
            expected_F = bits_FD[:, place // per_input] if inside else torch.zeros(4, dtype=torch.bool)
            assert torch.equal(mirrors_FYX[:, y, x], expected_F)


def test_impossible_layouts_are_refused():
    with pytest.raises(Incompatible, match="12 mirrors cannot show 13"):
        MirrorLayout(shape_dmd=(3, 4), num_inputs=13)
    with pytest.raises(ConfigError, match="within 3 x 4"):
        MirrorLayout(shape_dmd=(3, 4), num_inputs=2, roi_dmd=(1, 1, 3, 3))


@pytest.mark.parametrize("arm", DEMODULATORS)
def test_a_sound_bench_projects_like_its_twin(arm):
    p_NM, bench, _ = project(arm=arm)
    twin = Twin(shape_dmd=SHAPE_DMD, shape_cam=SHAPE_CAM)
    optical = Optical(twin, encoder=Ternary("best_cosine"), demodulator=DEMODULATORS[arm]).shaped(D, M)
    assert agreement(p_NM, optical.project(rows())) > 0.98
    assert bench.health["retries"] == 0
    assert bench.frame_lag == 0


ABSORBED = ["lost frames", "late frames", "duplicated frames"]


@pytest.mark.parametrize("start", [0, 206])
@pytest.mark.parametrize("arm", DEMODULATORS)
@pytest.mark.parametrize("kind", ABSORBED)
def test_passing_troubles_are_absorbed_by_showing_the_chunk_again(kind, arm, start):
    expected_NM, _, _ = project(arm=arm)
    p_NM, bench, shared = project(Fault(kind=kind, start=start), arm=arm)
    assert shared.trouble == [kind]
    assert bench.health["retries"] >= 1
    assert agreement(p_NM, expected_NM) > 0.98


def test_a_disconnect_is_answered_by_opening_anew():
    expected_NM, _, _ = project()
    p_NM, bench, shared = project(Fault(kind="disconnect", start=1, times=3))
    assert (bench.health["reopened"], shared.trouble) == (1, ["disconnect"] * 3)
    assert agreement(p_NM, expected_NM) > 0.98


def test_a_shift_that_stays_is_measured_and_allowed_for():
    expected_NM, _, _ = project()
    p_NM, bench, shared = project(Fault(kind="shifted frames", start=206, times=None))
    assert "shifted frames" in shared.trouble
    assert (bench.frame_lag, bench.health["realigned"]) == (1, 1)
    assert agreement(p_NM, expected_NM) > 0.98


def test_a_shift_from_the_beginning_is_found_when_opening():
    bench, _ = rig(D, Fault(kind="shifted frames", times=None))
    bench.open()
    assert bench.frame_lag == 1


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault(kind="lost frames", start=206, times=None), FrameMismatch, "came back"),
        (Fault(kind="duplicated frames", start=206, times=None), FrameMismatch, "told apart|out of step"),
        (Fault(kind="disconnect", start=206, times=None), Disconnected, "ALP_NOT_AVAILABLE"),
        (Fault(kind="dark laser", start=206, times=None), Dark, "check laser"),
        (Fault(kind="dark laser", times=None), Dark, "check laser"),
        (Fault(kind="saturation", start=206, size=30.0, times=None), Saturated, "at full scale"),
        (Fault(kind="saturation", start=206, size=3.0, times=None), Saturated, "at full scale"),
    ],
)
def test_lasting_troubles_end_with_their_own_error(fault, error, words):
    with pytest.raises(error, match=words):
        project(fault)


def test_frame_numbers_are_used_where_the_camera_gives_them():
    _, bench, _ = project(Fault(kind="lost frames", start=206), world={"counts_frames": True})
    assert bench.health["retries"] == 1
    with pytest.raises(FrameMismatch, match=r"gaps or repeats: \d+ then \d+"):
        project(Fault(kind="duplicated frames", start=206, times=None), world={"counts_frames": True}, retries=1)


def test_left_justified_words_are_shifted_or_refused():
    twin = Twin(shape_dmd=SHAPE_DMD, shape_cam=SHAPE_CAM, sensor=Sensor(bits=12))
    expected_NM, _, _ = project()
    p_NM, _, _ = project(twin=twin, world={"left_justified": True})
    assert agreement(p_NM, expected_NM) > 0.98
    twin = Twin(shape_dmd=SHAPE_DMD, shape_cam=SHAPE_CAM, sensor=Sensor(bits=12))
    with pytest.raises(FrameMismatch, match="set left_justified = True"):
        project(Fault(kind="undeclared shift", times=None), twin=twin)


@settings(deadline=None, max_examples=40)
@given(num_frames=st.integers(1, 100), every=st.integers(1, 40), data=st.data())
def test_one_slip_anywhere_in_a_chunk_is_noticed(num_frames, every, data):
    """Frames that all look lit: the hardest case for dark ticks, and every lost or repeated frame must still show."""
    bits_FD = torch.ones(num_frames, 5, dtype=torch.bool)
    shown_FD, places, dark, lit = sync.wrap(bits_FD, every)
    assert sorted(places + dark + lit) == list(range(len(shown_FD)))
    assert shown_FD[lit].all()
    assert not shown_FD[dark].any()
    counts_FPQ = 20.0 + 100.0 * shown_FD[:, :1, None].expand(-1, 8, 8)
    assert sync.in_step(counts_FPQ, dark, lit)
    k = data.draw(st.integers(0, len(shown_FD) - 1))
    lost = torch.cat([counts_FPQ[:k], counts_FPQ[k + 1 :], counts_FPQ[-1:]])
    repeated = torch.cat([counts_FPQ[: k + 1], counts_FPQ[k:-1]])
    for wrong in (lost, repeated):
        if not torch.equal(wrong, counts_FPQ):  # a repeat among equals at the very end changes nothing
            assert not sync.in_step(wrong, dark, lit)


@pytest.mark.parametrize("start", [0.1, 5.0, 25.0])
def test_exposure_is_searched(start):
    bench, shared = rig(D)
    bench.open()  # the self-test needs light that it can see
    bench._camera.set_exposure(400e-6 * start)
    exposure_s = bench.search_exposure(num_inputs=D, roi=(8, 8), target=0.3)
    assert exposure_s == bench.exposure_s
    bench._chunk_in_step(torch.ones(4, D, dtype=torch.bool), (8, 8))
    assert shared.exposure == pytest.approx(0.3 / 0.33, rel=0.15)


def test_an_exposure_out_of_reach_has_its_error():
    bench, _ = rig(D, Fault(kind="gain jump", size=0.004, times=None))
    with pytest.raises(Dark):
        bench.search_exposure(num_inputs=D, roi=(8, 8))


def test_abilities_follow_from_the_parts():
    assert {arm: rig(D, arm=arm)[0].arms for arm in DEMODULATORS} == {arm: frozenset({arm}) for arm in DEMODULATORS}
    with pytest.raises(Incompatible, match="OffAxis"):
        Optical(rig(D, arm="tilted")[0]).shaped(D, M)


def test_light_and_health_are_in_the_state():
    _, bench, _ = project(Fault(kind="lost frames", start=206))
    fresh, _ = rig(D)
    fresh.load_state_dict(bench.state_dict())
    assert (fresh.spent, fresh.health) == (bench.spent, bench.health)


@pytest.mark.parametrize(
    "settings", [{"chunk_frames": 0}, {"retries": -1}, {"timeout_s": 0.0}, {"pupil_cpp": 0.1}, {"sync_every": 0}]
)
def test_impossible_benches_are_refused(settings):
    with pytest.raises(ConfigError):
        rig(D, **settings)
