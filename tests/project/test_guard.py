"""Witness patterns: what drifts is measured, corrected, warned of, and in the end refused."""

import copy
import math
import warnings

import pytest
import torch

from odfa.encode import Ternary
from odfa.errors import CheckpointError, ConfigError, Drifted
from odfa.keys import torch_generator
from odfa.opu import Drift, Twin
from odfa.project import DriftWarning, Guard, Optical
from odfa.project.guard import overlap, witnesses

EXACT = Ternary("best_cosine")
D, M = 40, 200


def rows(num_rows: int = 30) -> torch.Tensor:
    return (torch.randn(num_rows, D, generator=torch_generator(0)) > 0.5).float() * 2 - 1


def watched(twin: Twin, **settings: object) -> Optical:
    return Optical(twin, encoder=EXACT, guard=Guard(**{"every": 10, **settings})).shaped(D, M)


def agreement(a_NM: torch.Tensor, b_NM: torch.Tensor) -> float:
    return (torch.sum(a_NM * b_NM) / (a_NM.norm() * b_NM.norm())).item()


def later(twin: Twin, seconds: float) -> None:
    """Let time pass without light."""
    state = twin.state_dict()
    state["spent"] = state["spent"] | {"seconds": state["spent"]["seconds"] + seconds}
    twin.load_state_dict(state)


def test_witnesses_are_ternary_never_empty_and_always_the_same():
    for num_inputs in (1, 2, 10, 1000):
        frames = witnesses(num_inputs, 6)
        frames.check()
        assert not (frames.bits_NFD[:, 0] & frames.bits_NFD[:, 1]).any()
        assert frames.bits_NFD.any(dim=(1, 2)).all()
        assert torch.equal(frames.bits_NFD, witnesses(num_inputs, 6).bits_NFD)
    assert frames.bits_NFD.float().mean() == pytest.approx(0.25, abs=0.02)


def test_overlap_is_the_cosine_with_its_angle():
    a_WM = torch.randn(3, 5, dtype=torch.complex64, generator=torch_generator(0))
    assert overlap(a_WM, a_WM * 2 * complex(math.cos(0.7), math.sin(0.7))) == pytest.approx(
        complex(math.cos(0.7), math.sin(0.7)), abs=1e-6
    )
    assert overlap(a_WM, torch.zeros_like(a_WM)) == 0


def test_a_quiet_opu_is_left_alone():
    plain = Optical(Twin.ideal(), encoder=EXACT).shaped(D, M)
    optical = watched(Twin.ideal())
    torch.testing.assert_close(optical.project(rows()), plain.project(rows()), atol=1e-4, rtol=1e-4)
    found = optical.diagnostics
    assert found["witness_correlation"] == pytest.approx(1, abs=1e-6)
    assert found["witness_phase_rad"] == pytest.approx(0, abs=1e-6)
    assert found["witness_gain"] == pytest.approx(1, abs=1e-6)
    assert found["recalibrations"] == 0


@pytest.mark.parametrize("calls", [(30,), (7, 7, 7, 9), (10, 20)])
def test_looks_come_at_the_stated_rate_and_are_in_the_account(calls):
    optical = watched(Twin())
    for count in calls:
        optical.project(rows(count))
    shows = 2 + 2  # the calibration shows the witnesses twice; a look before vector 10 and before vector 20
    assert optical.spent.frames == (30 + shows * 8) * 8
    assert optical.cost(30).frames == optical.spent.frames


def test_a_turned_phase_is_taken_out():
    drift = Drift(phase_drift_rad_per_s=1.0)
    before_NM = watched(Twin.ideal()).project(rows())
    results = {}
    for correct in (True, False):
        twin = Twin.ideal(drift=drift)
        optical = watched(twin, correct=correct)
        optical.project(rows(1))
        later(twin, 0.8)
        optical.project(rows(9))  # nothing is due yet: these still see the drift
        results[correct] = agreement(optical.project(rows()), before_NM)
        assert abs(optical.diagnostics["witness_phase_rad"]) == pytest.approx(0.95, abs=0.25)
        assert optical.diagnostics["witness_correlation"] == pytest.approx(1, abs=0.01)
    assert results[True] > 0.99
    assert results[False] == pytest.approx(math.cos(1.0), abs=0.15)


def test_a_medium_that_leaves_is_warned_of_and_then_refused():
    twin = Twin(drift=Drift(decorrelation_s=100.0))
    optical = watched(twin)
    optical.project(rows(10))
    later(twin, 100 * 2 / math.pi * math.acos(0.9))
    with pytest.warns(DriftWarning, match=r"correlates 0\.(89|90|91)"):
        optical.project(rows(10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optical.project(rows(10))  # once is enough
    assert optical.diagnostics["witness_correlation"] == pytest.approx(0.9, abs=0.02)
    later(twin, 30.0)
    with pytest.raises(Drifted, match="no longer the one calibrated"):
        optical.project(rows(10))


def test_recalibrating_goes_on_and_is_counted_and_bounded():
    twin = Twin(drift=Drift(decorrelation_s=10.0))
    optical = watched(twin, when_lost="recalibrate", max_recalibrations=1)
    optical.project(rows(10))
    later(twin, 9.0)
    with pytest.warns(DriftWarning, match="calibrated anew"):
        optical.project(rows(10))
    assert optical.diagnostics["recalibrations"] == 1
    assert optical.diagnostics["witness_correlation"] == 1
    later(twin, 9.0)
    with pytest.raises(Drifted, match="1 recalibrations"):
        optical.project(rows(10))


def test_light_that_breathes_is_rescaled_and_light_that_fails_is_refused():
    twin = Twin.ideal()
    optical = watched(twin)
    before_NM = optical.project(rows(10))
    real = type(twin).counts_per_intensity
    for factor, refused in ((0.7, False), (0.1, True)):
        # an OPU that believes it is brighter than it is: the fields come out smaller by `factor`
        twin.counts_per_intensity = lambda n, arm, f=factor: real(twin, n, arm) / f
        if refused:
            with pytest.raises(Drifted, match=r"light 0\.10 times"):
                optical.project(rows(10))
        else:
            torch.testing.assert_close(optical.project(rows(10)), before_NM, atol=1e-4, rtol=1e-4)
            assert optical.diagnostics["witness_gain"] == pytest.approx(0.7, rel=1e-4)


def test_an_opu_that_does_not_repeat_is_refused_at_once():
    optical = watched(Twin(drift=Drift(phase_jitter_rad=2.5)))
    with pytest.raises(Drifted, match="shown twice correlate"):
        optical.project(rows(1))


def test_state_goes_on_where_it_was():
    def fresh() -> Optical:
        return watched(Twin(noise_seed=1, drift=Drift(phase_drift_rad_per_s=2.0)))

    optical = fresh()
    optical.project(rows(17))
    resumed = fresh()
    resumed.load_state_dict(copy.deepcopy(optical.state_dict()))
    for _ in range(2):
        assert torch.equal(optical.project(rows(8)), resumed.project(rows(8)))
    assert optical.diagnostics == resumed.diagnostics


@pytest.mark.parametrize(
    "damage",
    [
        lambda w: w.real.double(),
        lambda w: w.to(torch.complex128),
        lambda w: w.real.to(torch.int8),
        torch.zeros_like,
        lambda w: w * torch.nan,
        lambda w: w[:-1],
    ],
)
def test_remembered_witnesses_of_another_kind_are_refused(damage):
    optical = watched(Twin())
    optical.project(rows(3))
    state = copy.deepcopy(optical.state_dict())
    places = [(part, key) for part in _parts(state) for key in part if key == "_then_WM"]
    assert places
    for part, key in places:
        part[key] = damage(part[key])
    with pytest.raises(CheckpointError, match=r"guard\._then_WM: expected"):
        optical.load_state_dict(state)


def _parts(state):
    yield state
    for value in state.values():
        if isinstance(value, dict):
            yield from _parts(value)


def test_widths_of_one_opu_are_watched_together():
    optical = watched(Twin())
    optical.project(rows(5))
    wider = optical.shaped(D, 2 * M)
    frames = wider.spent.frames
    wider.project(rows(5))
    assert wider.spent.frames == frames + 5 * 8
    wider.project(rows(1))
    assert wider.diagnostics["witness_correlation"] > 0.95


@pytest.mark.parametrize(
    "settings",
    [{"every": 0}, {"num_witnesses": 1.5}, {"stop_below": 0.9, "warn_below": 0.5}, {"when_lost": "pray"}],
)
def test_impossible_guards_are_refused(settings):
    with pytest.raises(ConfigError):
        Guard(**settings)
