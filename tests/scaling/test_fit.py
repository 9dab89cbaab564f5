"""Constants from timings: recovered from made-up machines, and what is timed and read back."""

import json
from dataclasses import replace

import pytest

from odfa.errors import ConfigError, DataError
from odfa.scaling import PROCESSORS, Gpt
from odfa.scaling.fit import check_steps, fit_machine, peak, phases_s, summary, twin_s
from odfa.scaling.measure import (
    CHECKED,
    FITTED,
    ProjectionTiming,
    Timing,
    peak_bytes,
    time_projections,
    time_steps,
)
from odfa.scaling.measurement import HERE, MachineMeasurement, measured_points, planned, read, report

TINY = Gpt(depth=1, width=64, tokens=64, context=32, vocabulary=128)
START = PROCESSORS["xeon-2"]
MACHINE = replace(
    START,
    matmul_flops_per_s=4e11,
    attention_flops_per_s=1e11,
    bytes_per_s=2e10,
    call_s=2e-5,
    twin_vector_s=1e-6,
    twin_entry_s=3e-9,
    twin_product_s=1e-11,
    twin_pixel_s=2e-8,
    memory_j_per_byte=1e-11,
)


def made_up(gpt: Gpt, method: str, machine=MACHINE) -> Timing:
    parts = phases_s(gpt, method, machine)
    times = {f"{name}_s": parts[name] for name in ("forward", "backward", "update")}
    return Timing(gpt=gpt, method=method, **times, median_s=parts["step"], spread=0.0, repeats=3)


def projections(machine=MACHINE) -> list[ProjectionTiming]:
    shapes = [(64, 128, 64), (64, 1024, 64), (256, 128, 512), (512, 2048, 128), (32, 512, 1024)]
    return [
        ProjectionTiming(rows=n, inputs=d, outputs=m, digital_s=1e-3, twin_s=twin_s(machine, n, d, m))
        for n, d, m in shapes
    ]


SMALL = [
    Gpt(depth=depth, width=width, tokens=tokens, context=32, vocabulary=vocabulary)
    for depth, width, tokens, vocabulary in ((1, 64, 64, 128), (4, 64, 512, 128), (2, 256, 64, 512), (1, 512, 512, 128))
]


def test_the_constants_of_a_machine_are_found_from_its_times():
    found = fit_machine(
        [made_up(gpt, method) for gpt in SMALL for method in ("bp", "shallow", "dfa")], projections(), START
    )
    for name in ("matmul_flops_per_s", "attention_flops_per_s", "bytes_per_s", "call_s"):
        assert getattr(found, name) == pytest.approx(getattr(MACHINE, name), rel=0.02), name
    for name in ("twin_vector_s", "twin_entry_s", "twin_product_s", "twin_pixel_s"):
        assert getattr(found, name) == pytest.approx(getattr(MACHINE, name), rel=0.02), name


def test_constants_that_the_times_say_nothing_of_end_where_their_units_do():
    # one projection cannot tell four constants apart, and a second or a day of it makes each of them absurd
    steps = [made_up(gpt, "bp") for gpt in SMALL]
    for twin_s_each in (1e-9, 1.0, 86_400.0):
        one = ProjectionTiming(rows=4, inputs=8, outputs=4, digital_s=1e-3, twin_s=twin_s_each)
        slow = replace(START, call_s=1.0)
        for timings in (steps, [replace(s, forward_s=1e3, backward_s=1e-9, update_s=1e-12) for s in steps]):
            found = fit_machine(timings, [one], slow)
            assert 0.0 <= found.twin_vector_s <= 1.0
            assert all(0.0 <= s <= 1e-3 for s in (found.twin_entry_s, found.twin_product_s, found.twin_pixel_s))
            assert 0.0 <= found.call_s <= 1.0


def test_too_little_to_fit_to_is_refused():
    with pytest.raises(DataError, match="at least 4"):
        fit_machine([made_up(SMALL[0], "bp")], projections(), START)


def test_what_is_checked_is_not_fitted_to_and_spans_what_it_should():
    assert not set(CHECKED) & set(FITTED)
    assert len(CHECKED) >= 12
    assert {min(gpt.depth for gpt in CHECKED), max(gpt.depth for gpt in CHECKED)} == {2, 24}
    assert {min(gpt.width for gpt in CHECKED), max(gpt.width for gpt in CHECKED)} == {128, 1024}
    assert {min(gpt.tokens for gpt in CHECKED), max(gpt.tokens for gpt in CHECKED)} == {256, 2048}


def test_steps_are_timed_by_phase():
    said: list[str] = []
    timings = time_steps([(TINY, ("bp", "shallow", "dfa", "odfa", "inputs"))], repeats=2, note=said.append)
    assert [timing.method for timing in timings] == ["bp", "shallow", "dfa", "odfa", "inputs"]
    assert all(min(timing.forward_s, timing.backward_s) > 0 for timing in timings)
    assert all(timing.repeats >= 2 for timing in timings)
    assert len(said) == 2, "two rounds"
    assert "1 blocks of 64, 64 tokens" in said[0]


def test_a_prediction_on_its_own_machine_is_exact():
    checks = check_steps([made_up(gpt, "bp") for gpt in SMALL], MACHINE)
    assert summary(checks) == {"count": 4, "median": 0.0, "worst": 0.0}


def measurement() -> MachineMeasurement:
    fitted = [made_up(gpt, method) for gpt in SMALL for method in ("bp", "dfa")]
    fitted += [replace(timing, method="inputs") for timing in fitted if timing.method == "bp"]
    return MachineMeasurement(
        environment={"cpu": "made up"},
        fitted=fitted,
        checked=[made_up(TINY, method) for method in ("bp", "shallow", "dfa", "odfa")],
        projections=projections(),
        peaks=[(TINY, "bp", round(peak(TINY, "bp")))],
    )


def test_a_measurement_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "there" / "measurement.json"
    measurement().write(path)
    back = read(path)
    assert back.to_json() == measurement().to_json()
    found = report(back, back.machine())
    assert found["machine"]["name"] == HERE
    assert found["step_errors"]["all"]["worst"] < 0.05
    assert found["peak_errors"]["all"]["worst"] < 1e-3
    assert {row["measured_s"] for row in measured_points(back, back.machine())} == {t.step_s for t in back.checked}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"environment": {}, "fitted": 3}'])
def test_a_file_that_is_no_measurement_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "measurement.json"
    path.write_text(text)
    with pytest.raises(DataError, match="odfa study measure"):
        read(path)


def test_a_missing_measurement_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match="odfa study measure"):
        read(tmp_path / "none.json")


def test_a_plan_of_the_measurement_names_every_network():
    found = planned(memory=True, repeats=3)
    assert len(found["fitted"]) == len(FITTED)
    assert len(found["checked"]) == len(CHECKED)
    assert planned(memory=False, repeats=2)["peaks"] == []
    with pytest.raises(ConfigError, match="repeats"):
        planned(memory=False, repeats=1)


@pytest.mark.slow
def test_peak_memory_is_predicted_within_a_tenth():
    gpt = Gpt(depth=6, width=256, tokens=1024)
    for method in ("bp", "shallow", "dfa", "odfa"):
        assert peak(gpt, method) == pytest.approx(peak_bytes(gpt, method), rel=0.1), method


@pytest.mark.slow
def test_projections_are_timed():
    assert all(min(timing.digital_s, timing.twin_s) > 0 for timing in time_projections(2))
