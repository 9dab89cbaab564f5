"""Means, spreads and gaps against plain arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odfa.lab.summary import gap_closed, summarise

finite = st.floats(min_value=0.01, max_value=1e3)


@given(st.lists(finite, min_size=2, max_size=8))
def test_mean_and_sample_standard_deviation(values):
    found = summarise({"dfa": values})["dfa"]
    assert found["mean"] == pytest.approx(np.mean(values), rel=1e-9)
    assert found["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-9)


def test_one_seed_has_no_spread():
    assert summarise({"dfa": [0.5]}) == {"dfa": {"mean": 0.5, "std": None}}


def test_gap_of_an_accuracy():
    found = gap_closed({"bp": 0.9, "shallow": 0.8, "odfa": 0.88, "dfa": 0.75}, metric="accuracy")
    assert found == pytest.approx({"bp": 1.0, "shallow": 0.0, "odfa": 0.8, "dfa": -0.5})


def test_gap_of_a_perplexity_is_taken_in_logs():
    means = {"bp": math.exp(2.0), "shallow": math.exp(3.0), "odfa": math.exp(2.25)}
    assert gap_closed(means, metric="perplexity") == pytest.approx({"bp": 1.0, "shallow": 0.0, "odfa": 0.75})


@given(finite, finite, finite, st.floats(min_value=0.1, max_value=10))
def test_the_gap_of_a_perplexity_does_not_depend_on_its_unit(bp, shallow, odfa, unit):
    means = {"bp": bp, "shallow": shallow, "odfa": odfa}
    found = gap_closed(means, metric="perplexity")
    if abs(math.log(bp / shallow)) > 1e-3:
        scaled = gap_closed({arm: mean * unit for arm, mean in means.items()}, metric="perplexity")
        assert scaled["odfa"] == pytest.approx(found["odfa"], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("means", [{"bp": 0.9, "odfa": 0.8}, {"shallow": 0.9, "odfa": 0.8}])
def test_no_gap_without_both_ends(means):
    assert gap_closed(means, metric="accuracy") == {}


def test_no_share_of_nothing():
    assert gap_closed({"bp": 0.9, "shallow": 0.9}, metric="accuracy") == {"bp": None, "shallow": None}
