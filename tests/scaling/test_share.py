"""Workers that share OPUs: the simulation against the closed form, and against laws that hold for any queue."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa.errors import ConfigError
from odfa.scaling import Sharing, closed_form, simulate
from odfa.scaling.share import sweep

free = st.builds(
    Sharing,
    workers=st.integers(1, 12),
    opus=st.integers(1, 3),
    compute_s=st.floats(0.1, 2.0),
    light_s=st.floats(0.01, 1.0),
    transfer_s=st.sampled_from((0.0, 0.01)),
)


@settings(max_examples=40, deadline=None)
@given(sharing=free)
def test_without_chance_free_workers_reach_the_closed_form(sharing):
    """Workers that always take equally long settle into turns: no one waits unless an OPU or the network is full."""
    simulated, ideal = simulate(sharing, steps=200), closed_form(sharing)
    assert simulated.steps_per_s == pytest.approx(ideal.steps_per_s, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(sharing=free, straggle=st.floats(0.0, 0.5))
def test_light_queueing_agrees_within_five_hundredths(sharing, straggle):
    chosen = replace(sharing, straggle=straggle)
    ideal = closed_form(chosen)
    if ideal.utilisation > 0.5 or ideal.steps_per_s * chosen.transfer_s > 0.2:
        return
    simulated = simulate(chosen, steps=600)
    assert simulated.steps_per_s == pytest.approx(ideal.steps_per_s, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(sharing=free, straggle=st.floats(0.0, 1.0))
def test_nothing_exceeds_what_opus_and_network_can_serve(sharing, straggle):
    simulated = simulate(replace(sharing, straggle=straggle), steps=300)
    assert simulated.steps_per_s * sharing.light_s <= sharing.opus * 1.02
    assert simulated.steps_per_s * sharing.transfer_s <= 1.02
    assert simulated.latency_p99_s >= simulated.latency_s >= 0.999 * (sharing.light_s + sharing.transfer_s)


def test_in_step_everyone_waits_for_the_last():
    sharing = Sharing(workers=6, opus=2, compute_s=1.0, light_s=0.2, synchronous=True)
    simulated = simulate(sharing, steps=100)
    assert simulated.steps_per_s == pytest.approx(6 / (1.0 + 3 * 0.2), rel=1e-6)
    assert simulated.steps_per_s == pytest.approx(closed_form(sharing).steps_per_s, rel=1e-6)


def test_near_saturation_chance_costs_throughput_and_lengthens_the_tail():
    crowded = Sharing(workers=11, straggle=0.5)
    simulated, ideal = simulate(crowded, steps=1000), closed_form(crowded)
    assert simulated.steps_per_s < 0.95 * ideal.steps_per_s
    assert simulated.latency_p99_s > 3 * ideal.latency_s


def test_a_second_opu_halves_the_light_of_a_crowd():
    crowd = Sharing(workers=40)
    assert simulate(replace(crowd, opus=2)).steps_per_s == pytest.approx(2 * simulate(crowd).steps_per_s, rel=0.05)


def test_recalibration_takes_its_share_of_a_full_opu():
    busy = Sharing(workers=40, recalibrate_every_s=20.0, recalibrate_s=5.0)
    assert simulate(busy).steps_per_s == pytest.approx(0.8 * 10.0, rel=0.05)
    assert simulate(busy).latency_p99_s > 5.0


def test_lost_workers_cost_their_steps_and_their_repair():
    lossy = Sharing(workers=4, lost_every_s=50.0, repair_s=10.0)
    simulated, whole = simulate(lossy, steps=1000), simulate(replace(lossy, lost_every_s=None), steps=1000)
    assert simulated.lost > 40
    share = 50.0 / (50.0 + 10.0 + 0.5)  # half a step is lost on the average
    assert simulated.steps_per_s == pytest.approx(share * whole.steps_per_s, rel=0.1)


def test_equal_seeds_give_equal_figures_and_others_do_not():
    sharing = Sharing(straggle=0.3)
    assert simulate(sharing, seed=1) == simulate(sharing, seed=1) != simulate(sharing, seed=2)


def test_a_sweep_puts_both_side_by_side():
    rows = sweep(Sharing(), [1, 3])
    assert [row["workers"] for row in rows] == [1, 3]
    assert all(row["ratio"] == row["steps_per_s"] / row["closed_form_steps_per_s"] for row in rows)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", 0),
        ("opus", 0),
        ("compute_s", 0.0),
        ("light_s", -1.0),
        ("straggle", -0.1),
        ("lost_every_s", 0.0),
        ("repair_s", float("nan")),
    ],
)
def test_impossible_rooms_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        Sharing(**{field: value})


def test_too_few_steps_are_refused():
    with pytest.raises(ConfigError, match="steps"):
        simulate(Sharing(), steps=9)
