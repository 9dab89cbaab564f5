"""Where light overtakes: on made-up members whose crossing is known, and the statements of the study by hand."""

from dataclasses import replace
from functools import cache

import pytest

from odfa.arms import arm
from odfa.scaling import (
    OPUS,
    PLANNED_METHODS,
    Gpt,
    Model,
    StepLayout,
    StudySettings,
    attribution,
    band,
    crossing,
    curve,
    get_processor,
    step_cost,
)
from odfa.scaling.crossover import Race, joules, made_by, races
from odfa.scaling.family import FAMILIES, SIZES, members
from odfa.scaling.study import STATEMENTS, run_study, statements

OPU = OPUS["opu-2021"]
CONFIG = StudySettings()


@cache
def models(family: str, granularity: str = "block", processor: str = "reference") -> list[Model]:
    config = replace(CONFIG, granularity=granularity)
    return [model for _, model in curve(config, family, get_processor(processor))]


def race(
    family: str, *, vectors="token", offloading=False, baseline="bp", granularity="block", processor="reference"
) -> Race:
    made = races(models(family, granularity, processor), OPU, [StepLayout(vectors=vectors)], offloading=offloading)
    return next(found for found in made if found.baseline == baseline)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_families_reach_from_ten_million_to_a_trillion(family):
    grown = members(family, CONFIG.like)
    parameters = [gpt.parameters for gpt in grown]
    assert parameters == sorted(parameters)
    assert parameters[0] < 1.3e7
    assert parameters[-1] == pytest.approx(1e12, rel=0.02)
    assert len(grown) == len(SIZES)
    assert [model.parameters for model in models(family)] == pytest.approx(parameters)


def test_saved_arithmetic_alone_crosses_where_the_sum_by_hand_says():
    """n k / f < 2 P n / G, G = 1e14, k / f = 1 ms: P > 5e10 if every input gradient is saved.

    Linear layers that learn by themselves save nearly all of it, blocks a quarter: three inputs of twelve.
    """
    linear, block = crossing(race("deep", granularity="linear")), crossing(race("deep"))
    assert linear.parameters == pytest.approx(5e10, rel=0.25)
    assert block.parameters == pytest.approx(4 * 5e10, rel=0.25)


def test_that_crossing_solves_its_own_equation():
    """At the crossing, the light takes as long as the backward pass that it saves, the latency of light aside."""
    found = crossing(race("deep"))
    far = models("deep")[-1]
    bp, ours = (step_cost(far, PLANNED_METHODS[name], OPU, StepLayout(off=("offloading",))) for name in ("bp", "odfa"))
    saved_s = bp.parts_s["backward"] - ours.parts_s["backward"]
    assert found.parameters == pytest.approx(far.parameters * ours.parts_s["light"] / saved_s, rel=0.1)


def test_one_vector_per_sequence_moves_it_down_by_the_length_of_a_sequence():
    token, sequence = crossing(race("deep")), crossing(race("deep", vectors="sequence"))
    assert 0.3 < token.parameters / sequence.parameters / CONFIG.context < 1.5


def test_a_few_billion_come_from_activations_that_are_moved_and_from_nothing_else():
    moved = race("deep", offloading=True, baseline="bp+offloading")
    found, without = crossing(moved), attribution(moved)
    assert 1e9 < found.parameters < 5e9
    assert made_by(found, without) == "moved_activations"
    assert without["moved_activations"].verdict in ("never", "tie")
    assert without["fewer_vectors"] == found
    assert crossing(race("deep", offloading=True, baseline="fastest bp")).verdict in ("never", "tie")


def test_the_band_holds_the_crossing():
    found = band(race("deep"))
    assert found.early.parameters < found.found.parameters < found.late.parameters


def test_a_faster_opu_crosses_earlier_and_a_slower_processor_too():
    here = race("deep")
    assert crossing(here.scaled(1.0, 2.0)).parameters < crossing(here).parameters
    assert crossing(here.scaled(0.5, 1.0)).parameters < crossing(here).parameters


def test_in_energy_an_opu_that_is_on_all_the_time_must_save_more_than_its_watts():
    sequence = race("deep", vectors="sequence")
    assert crossing(sequence, joules).verdict in ("never", "tie")
    frugal = replace(sequence, opu=replace(OPU, power_w=0.1))
    assert crossing(frugal, joules).verdict == "crosses"


def test_an_opu_that_is_too_small_says_so():
    tiny = replace(OPU, camera_rows=64, camera_columns=64)
    assert crossing(replace(race("wide"), opu=tiny)).verdict == "too wide"


def test_the_study_gives_points_crossovers_and_attribution():
    config = StudySettings(families=("deep",), processors=("a100",), opus=("opu-2021",))
    found = run_study(config)
    assert set(found) == {"points", "crossovers", "attribution", "statements"}
    wanted = {"parameters", "depth", "width", "method", "measured_s", "predicted_s", "energy_j"}
    assert all(wanted <= set(row) for row in found["points"])
    assert {row["method"] for row in found["points"]} == set(PLANNED_METHODS)
    assert len(found["points"]) == len(SIZES) * len(PLANNED_METHODS)
    assert {row["name"] for row in found["crossovers"]} == set(found["attribution"])
    assert {(row["vectors"], row["offloading"]) for row in found["crossovers"]} == {
        ("token", False), ("token", True), ("sequence", False), ("sequence", True)
    }  # fmt: skip
    assert len(found["statements"]) == len(STATEMENTS)


def test_statements_agree_with_their_races():
    rows = {row["statement"]: row for row in statements(CONFIG)}
    linear = rows["saved arithmetic alone, one vector per token, linear layers"]
    assert linear["parameters"] == crossing(race("deep", granularity="linear")).parameters
    assert linear["low"]["parameters"] < linear["parameters"] < linear["high"]["parameters"]


def test_a_gpt_has_the_parameters_that_its_formula_says():
    gpt = Gpt(depth=3, width=128, tokens=256, vocabulary=300)
    from odfa.session import build_model

    assert gpt.parameters == sum(p.numel() for p in build_model(arm(gpt.run(), "bp"), gpt.shape).parameters())
