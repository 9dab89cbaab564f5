"""A comparison end to end, on the tiny recipe: choice on validation, reuse, resumption, one table, one figure."""

import dataclasses
import inspect
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from odfa import recipes, train
from odfa.arms import ARMS, name_of
from odfa.engine.rules import AlignedHead
from odfa.errors import CheckpointError, ConfigError, NonFinite, RunFolderError
from odfa.lab import CompareSettings, compare
from odfa.lab.trials import grid
from odfa.lab.wording import electronic_part, rate_centre, rule_of
from odfa.store.folder import read_config, read_result

ARMS_RUN = ("bp", "shallow", "odfa")


def _config(arm=None, **changes):
    tree = recipes.whole("digits_tiny") if arm is None else recipes.get("digits_tiny", arm)
    return replace(tree, epochs=1, tensorboard=False, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("compare")
    return out_dir, compare(_config(), ARMS_RUN, seeds=2, tries=2, out_dir=out_dir)


def test_the_object_has_exactly_the_promised_form(finished):
    result = json.loads(json.dumps(finished[1].to_json(), allow_nan=False))
    assert set(result) == {"recipe", "metric", "rows", "summary", "gap_closed", "learning_rates", "table", "figure"}
    assert result["metric"] == {"name": "accuracy", "better": "higher"}
    assert [(row["arm"], row["rule"], row["seed"]) for row in result["rows"]] == [
        ("bp", "backprop", 0),
        ("bp", "backprop", 1),
        ("shallow", "shallow", 0),
        ("shallow", "shallow", 1),
        ("odfa", "random", 0),
        ("odfa", "random", 1),
    ]
    for row in result["rows"]:
        assert set(row) == {"arm", "rule", "seed", "metric", "steps", "seconds", "light"}
        assert set(row["light"]) == {"frames", "seconds", "joules"}
        assert (row["light"]["frames"] > 0) == (row["arm"] == "odfa")
    assert set(result["summary"]) == set(result["gap_closed"]) == set(ARMS_RUN)


def test_the_rate_of_each_arm_is_the_best_on_validation(finished):
    out_dir, comparison = finished
    for arm, rates in comparison.to_json()["learning_rates"].items():
        assert len(rates["tries"]) == 2
        runs = {rate: read_result(out_dir / f"{arm}-lr{rate:g}-seed0") for rate in grid(rate_centre(_config(arm)), 2)}
        best = max(runs, key=lambda rate: (runs[rate]["validation"]["accuracy"], -runs[rate]["validation"]["loss"]))
        assert rates["chosen"] == best


def test_rows_are_the_runs_at_the_chosen_rate_and_nothing_else_ran(finished):
    out_dir, comparison = finished
    result = comparison.to_json()
    for row in result["rows"]:
        rate = result["learning_rates"][row["arm"]]["chosen"]
        run_dir = out_dir / f"{row['arm']}-lr{rate:g}-seed{row['seed']}"
        assert row["metric"] == read_result(run_dir)["metric"]["value"]
        assert name_of(read_config(run_dir)) == row["arm"]
    assert len([path for path in out_dir.iterdir() if path.is_dir()]) == len(ARMS_RUN) * (2 + 1)


def test_a_second_call_trains_nothing_and_says_the_same(finished, monkeypatch):
    out_dir, comparison = finished

    def refuse(*_arguments):
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr("odfa.train.loop.train_step", refuse)
    notes: list[str] = []
    again = compare(_config(), ARMS_RUN, seeds=2, tries=2, out_dir=out_dir, note=notes.append)
    assert again.to_json() == comparison.to_json()
    assert notes[-1] == f"reused {len(ARMS_RUN) * 3} finished runs in {out_dir}"
    assert not any("…" in line for line in notes)


def test_a_folder_of_another_config_is_refused(finished):
    with pytest.raises(CheckpointError, match="choose another folder"):
        compare(_config(batch_size=_config().batch_size + 1), ARMS_RUN, seeds=2, tries=2, out_dir=finished[0])


def test_table_and_figure(finished):
    out_dir, comparison = finished
    table = (out_dir / "table.md").read_text()
    for arm, figures in comparison.to_json()["summary"].items():
        line = next(line for line in table.splitlines() if line.startswith(f"| {arm} |"))
        assert f"{100 * figures['mean']:.2f}%" in line
    assert "all but the projection, which is optical" in table
    picture = (out_dir / "comparison.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_the_curves_are_those_of_the_runs(finished):
    curves = finished[1].curves()
    assert set(curves) == set(ARMS_RUN)
    for of_seeds in curves.values():
        assert len(of_seeds) == 2
        assert [step for step, _ in of_seeds[0]] == [step for step, _ in of_seeds[1]] != []


@pytest.mark.slow
def test_runs_side_by_side_are_the_same_runs(finished, tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise AssertionError("a run was trained in this process")

    monkeypatch.setattr("odfa.train.loop.train_step", refuse)
    notes: list[str] = []
    beside = compare(_config(), ARMS_RUN, seeds=2, tries=2, jobs=2, out_dir=tmp_path, note=notes.append).to_json()
    whole = finished[1].to_json()
    assert (beside["summary"], beside["learning_rates"]) == (whole["summary"], whole["learning_rates"])
    assert not any("reused" in line for line in notes)
    assert len([line for line in notes if line.endswith("…")]) == len(ARMS_RUN) * 3


def test_ctrl_c_reaches_runs_side_by_side_and_they_go_on_later(tmp_path):
    words = ["digits_tiny", "arms=bp,shallow", "seeds=2", "tries=1", "jobs=2", "epochs=100", "threads=1"]
    odfa = [sys.executable, "-c", "import sys; from odfa.cli import main; sys.exit(main())"]
    command = [*odfa, "compare", *words, "--run-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while len({file.parts[-3] for file in tmp_path.glob("*/checkpoints/step_*")}) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, "stopped" in said) == (130, True), said
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 2  # the other two were waiting and never began
    states = [json.loads((path / "status.json").read_text()) for path in folders]
    assert [state["status"] for state in states] == ["interrupted"] * 2
    assert all(state["step"] > 0 for state in states)
    for path in folders:
        train.run(read_config(path), path, resume=True)
        assert read_result(path) is not None


def test_tries_can_be_shorter_than_the_runs(tmp_path):
    tried = compare(_config(), ["bp"], seeds=1, tries=2, try_steps=3, out_dir=tmp_path).to_json()
    assert tried["rows"][0]["steps"] > 3
    assert sorted(path.name.endswith("-3steps") for path in tmp_path.iterdir() if path.is_dir()) == [False, True, True]


def test_an_arm_can_run_by_another_rule(tmp_path):
    arms = ["bp", "shallow", "dfa", "dfa:aligned", "dfa:exact"]
    found = compare(_config(), arms, seeds=1, tries=1, out_dir=tmp_path).to_json()
    assert [(row["arm"], row["rule"]) for row in found["rows"]] == [
        ("bp", "backprop"),
        ("shallow", "shallow"),
        ("dfa", "random"),
        ("dfa:aligned", "aligned"),
        ("dfa:exact", "exact"),
    ]
    assert set(found["gap_closed"]) == set(arms)
    table = (tmp_path / "table.md").read_text()
    assert "exact product of the head and the error, a bound" in table


@pytest.mark.parametrize("word", ["bp:aligned", "dfa:nothing", "nothing:aligned", "dfa:"])
def test_words_that_name_no_arm_and_rule_are_refused(word, tmp_path):
    with pytest.raises(ConfigError, match="arms: expected"):
        compare(_config(), [word], out_dir=tmp_path)


def test_an_interrupted_comparison_loses_nothing(finished, tmp_path, monkeypatch):
    step, left = train.loop.train_step, 8

    def step_until_stopped(session, batch):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return step(session, batch)

    with monkeypatch.context() as patch:
        patch.setattr("odfa.train.loop.train_step", step_until_stopped)
        with pytest.raises(train.Interrupted):
            compare(_config(), ARMS_RUN, seeds=2, tries=2, out_dir=tmp_path)
    again = compare(_config(), ARMS_RUN, seeds=2, tries=2, out_dir=tmp_path).to_json()
    whole = finished[1].to_json()
    assert again["summary"] == whole["summary"]
    assert again["learning_rates"] == whole["learning_rates"]


def test_a_choice_is_at_the_edge_only_where_the_grid_has_an_inside(finished, tmp_path):
    assert not any(rates["at_edge"] for rates in finished[1].to_json()["learning_rates"].values())
    three = compare(_config(), ["bp"], seeds=1, tries=3, out_dir=tmp_path).to_json()["learning_rates"]["bp"]
    assert three["at_edge"] == (three["chosen"] != three["tries"][1]["learning_rate"])


@pytest.mark.parametrize("damage", ["{", "7", '{"loss": 1.0}', "\xff"])
def test_a_damaged_log_is_named(finished, damage):
    file = finished[0] / f"bp-lr{finished[1].to_json()['learning_rates']['bp']['chosen']:g}-seed0/metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(damage.encode("latin-1") + b"\n" + whole)
    try:
        with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 1"):
            finished[1].curves()
    finally:
        file.write_bytes(whole)


def test_a_try_that_diverges_loses_and_does_not_stop_the_others(tmp_path, monkeypatch):
    top, step = max(grid(_config().optimizer.learning_rate, 2)), train.loop.train_step

    def diverge_at_the_top(session, batch):
        if session.config.optimizer.learning_rate == top:
            raise NonFinite("step 1: the loss is nan")
        return step(session, batch)

    monkeypatch.setattr("odfa.train.loop.train_step", diverge_at_the_top)
    rates = compare(_config(), ["bp"], seeds=1, tries=2, out_dir=tmp_path).to_json()["learning_rates"]["bp"]
    assert rates["chosen"] < top
    assert rates["tries"][1] == {"learning_rate": top, "validation": None}


def test_all_tries_diverging_is_an_error(tmp_path, monkeypatch):
    def diverge(*_arguments):
        raise NonFinite("step 1: the loss is nan")

    monkeypatch.setattr("odfa.train.loop.train_step", diverge)
    with pytest.raises(NonFinite, match="at every learning rate tried"):
        compare(_config(), ["bp"], seeds=1, tries=2, out_dir=tmp_path)


def test_python_takes_the_settings_of_the_command_line():
    named = inspect.signature(compare).parameters
    for entry in dataclasses.fields(CompareSettings):
        assert named[entry.name].default == entry.default


@pytest.mark.parametrize("arguments", [{"seeds": 0}, {"tries": 0}])
def test_counts_below_one_are_refused(tmp_path, arguments):
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}: expected a positive integer up to 1,?0"):
        compare(_config(), ["bp"], out_dir=tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tries", "factors"), [(1, [1]), (2, [3**-0.5, 3**0.5]), (3, [1 / 3, 1, 3]), (5, [1 / 9, 1 / 3, 1, 3, 9])]
)
def test_the_grid_is_geometric_around_its_centre(tries, factors):
    assert grid(1e-3, tries) == pytest.approx([1e-3 * factor for factor in factors], rel=5e-3)


def test_centres_move_the_grid_of_one_arm(tmp_path):
    found = compare(
        _config(), ["bp", "shallow"], seeds=1, tries=1, out_dir=tmp_path, centres={"shallow": 0.02}
    ).to_json()
    assert found["learning_rates"]["shallow"]["chosen"] == 0.02
    assert found["learning_rates"]["bp"]["chosen"] == _config().optimizer.learning_rate


def test_every_arm_says_what_is_electronic():
    parts = {electronic_part(_config(arm)) for arm in ARMS}
    assert len(parts) == len(ARMS)
    aligned = _config("odfa:aligned")
    assert "rank 1 every 20 steps" in electronic_part(aligned)
    assert "rank 5 every" in electronic_part(replace(aligned, rule=AlignedHead(rank=5)))
    assert "exact gradient for the last block" in electronic_part(_config("identity"))
    assert rule_of(aligned) == "aligned"
    assert "no electronic correction" in electronic_part(replace(aligned, rule=AlignedHead(rank=0)))
    assert "alone" in electronic_part(_config("odfa:electronic"))
