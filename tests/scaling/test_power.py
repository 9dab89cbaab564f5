"""Power laws: known exponents come back within their intervals, and the intervals hold as often as they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa.errors import DataError
from odfa.scaling.learning import exponent_told, verdicts
from odfa.scaling.power import LEVEL, PowerLaw, fit_power_law

COMPUTE = np.geomspace(4e10, 6e12, 5)


def _losses(compute, floor: float, fall: float, exponent: float) -> np.ndarray:
    """A law that falls by `fall` from infinity to its floor at the geometric mean of compute."""
    return floor + fall * (np.asarray(compute) / np.exp(np.log(compute).mean())) ** -exponent


@settings(deadline=None, max_examples=60)
@given(floor=st.floats(0.0, 3.0), fall=st.floats(0.3, 3.0), exponent=st.floats(0.03, 0.8))
def test_a_known_law_comes_back(floor, fall, exponent):
    losses = _losses(COMPUTE, floor, fall, exponent)
    law = fit_power_law(COMPUTE, losses)
    assert law.low <= exponent <= law.high
    assert law.exponent == pytest.approx(exponent, rel=1e-2)
    assert [law.at(compute) for compute in COMPUTE] == pytest.approx(losses, rel=1e-5)
    known = fit_power_law(COMPUTE, losses, floor=0.99 * floor)
    assert not known.fitted_floor
    assert known.floor == 0.99 * floor


@pytest.mark.parametrize(("sizes", "floor"), [(4, 2.0), (6, 0.0)], ids=["inside", "at the bound"])
def test_intervals_hold_the_exponent_as_often_as_they_say(sizes, floor):
    draws, compute = np.random.default_rng(3), np.geomspace(4e10, 6e12, sizes)
    exact = _losses(compute, floor, 1.5, 0.2)
    held = 0
    for _ in range(200):
        law = fit_power_law(compute, exact + 0.01 * draws.normal(size=sizes))
        held += (law.low or 0.0) <= 0.2 <= (law.high or np.inf)
    spread = (LEVEL * (1 - LEVEL) / 200) ** 0.5
    assert held / 200 == pytest.approx(LEVEL, abs=3 * spread)


def test_more_seeds_make_the_interval_narrower():
    draws = np.random.default_rng(5)
    compute = np.repeat(COMPUTE, 3)
    losses = _losses(compute, 2.0, 1.5, 0.2) + 0.01 * draws.normal(size=15)
    few, many = fit_power_law(compute[::3], losses[::3]), fit_power_law(compute, losses)
    assert many.high - many.low < few.high - few.low
    assert (few.freedom, many.freedom) == (2, 12)


def test_few_sizes_have_no_floor_and_two_no_interval():
    three = fit_power_law(COMPUTE[:3], 60 * COMPUTE[:3] ** -0.1)
    assert (three.floor, three.fitted_floor) == (0.0, False)
    assert three.low < 0.1 < three.high
    assert three.scale == pytest.approx(60, rel=1e-3)
    two = fit_power_law(COMPUTE[:2], [4.0, 3.0])
    assert (two.low, two.high, two.freedom) == (None, None, 0)
    assert [two.at(compute) for compute in COMPUTE[:2]] == pytest.approx([4.0, 3.0])


@pytest.mark.parametrize("losses", [[3.0] * 5, [3.0, 3.1, 3.2, 3.3, 3.4]], ids=["flat", "rising"])
def test_a_loss_that_does_not_fall_has_no_exponent(losses):
    law = fit_power_law(COMPUTE, losses)
    assert (law.exponent, law.scale, law.low, law.high) == (None,) * 4
    assert law.floor == pytest.approx(np.mean(losses))
    assert exponent_told(law) == "none"


@pytest.mark.parametrize(
    ("compute", "losses", "floor", "why"),
    [
        ([1e10], [3.0], None, "two amounts of compute"),
        ([1e10, 1e10], [3.0, 2.9], None, "two amounts of compute"),
        ([1e10, 1e11], [3.0], None, "two amounts of compute"),
        ([1e10, 1e11], [3.0, float("nan")], None, "two amounts of compute"),
        ([1e10, 1e11], [3.0, 2.0], 2.0, "floor: expected a loss from 0 to below 2"),
    ],
)
def test_what_has_no_law_is_refused(compute, losses, floor, why):
    with pytest.raises(DataError, match=why):
        fit_power_law(compute, losses, floor=floor)


def _law(exponent: float | None, low: float | None, high: float | None, freedom: int = 2) -> PowerLaw:
    interval = {"exponent": exponent, "low": low, "high": high}
    return PowerLaw(floor=2.0, scale=1.0, fitted_floor=True, freedom=freedom, **interval)


def test_a_sentence_says_whether_exponents_differ():
    usual = _law(0.2, 0.15, 0.25)
    said = verdicts(
        {
            "bp": usual,
            "odfa": _law(0.18, 0.1, 0.22),
            "dfa": _law(0.1, 0.05, 0.12),
            "tdfa": _law(0.4, 0.3, None),
            "dfa:random": _law(None, None, None),
            "dfa:exact": _law(0.2, None, None, freedom=0),
        }
    )
    assert said["odfa"] == (
        "odfa: exponent 0.180 (0.100 to 0.220), that of bp 0.200 (0.150 to 0.250): "
        "not told apart, the intervals overlap."
    )
    assert said["dfa"].endswith("smaller, the intervals do not overlap.")
    assert said["tdfa"].startswith("tdfa: exponent 0.400 (0.300 to over 4)")
    assert said["tdfa"].endswith("larger, the intervals do not overlap.")
    assert "the loss of dfa:random does not fall" in said["dfa:random"]
    assert "too few sizes" in said["dfa:exact"]
    assert verdicts({"odfa": usual}) == {}
