"""Commands that succeed: exit code 0, a result on standard output, notes on standard error."""

import re

import torch

TINY = ("digits_tiny", "epochs=1")


def _planned(odfa, *words):
    return odfa("train", *TINY, *words, "--dry-run", "--json").json


def test_recipes(odfa):
    said = odfa("recipes", "--json")
    assert said.code == 0
    assert "digits_tiny" in [recipe["name"] for recipe in said.json["recipes"]]
    assert "digits_tiny" in odfa("recipes").out


def test_env(odfa):
    said = odfa("env", "--json")
    assert said.code == 0
    assert said.json["packages"]["torch"] == torch.__version__
    assert set(said.json["extras"]) == {"language", "vision", "climate", "diffusion", "features", "scaling", "bench"}
    assert said.json["projections_by"]["cpu"] in ("numba", "torch")
    assert "cpu" in said.json["autocast_on"]
    assert torch.__version__ in odfa("env").out


def test_train_prints_one_object_and_leaves_a_run(odfa, tmp_path):
    said = odfa("train", *TINY, "arm=dfa", "--json")
    assert said.code == 0
    assert {"status", "steps", "metric", "parameters", "peak_memory_bytes", "light"} <= set(said.json)
    assert set(said.json["light"]) == {"frames", "seconds", "joules", "ops_peak", "ops_useful", "utilisation"}
    assert said.json["status"] == "complete"
    assert said.json["steps"] == _planned(odfa)["steps"]
    assert re.fullmatch("runs/digits_tiny-dfa-seed0-[0-9a-f]{8}", said.json["run_dir"])  # marked: epochs=1
    assert (tmp_path / said.json["run_dir"] / "config.json").exists()


def test_train_for_people(odfa):
    said = odfa("train", *TINY, "arm=odfa", "seed=3")
    assert said.code == 0
    assert "runs/digits_tiny-odfa-seed3" in said.out
    assert "accuracy" in said.out
    assert f"frames {_planned(odfa, 'arm=odfa')['light']['frames']:,}" in said.out


def test_settings_may_follow_options(odfa):
    said = odfa("train", "digits_tiny", "--run-dir", "here", "epochs=1", "arm=bp", "--json")
    assert said.code == 0
    assert (said.json["steps"], said.json["run_dir"]) == (_planned(odfa)["steps"], "here")


def test_resuming_a_complete_run_returns_its_result(odfa):
    first = odfa("train", *TINY, "arm=bp", "--json").json
    again = odfa("train", "--resume", first["run_dir"], "--json")
    assert again.code == 0
    assert again.json == first


def test_dry_run_touches_nothing(odfa, tmp_path):
    said = odfa("train", "digits", "arm=odfa", "--dry-run", "--json")
    assert said.code == 0
    assert said.json["steps"] > 0
    assert said.json["light"]["frames"] > 0
    assert list(tmp_path.iterdir()) == []
    assert "parameters" in odfa("train", "digits", "--dry-run").out


def test_align(odfa):
    run_dir = odfa("train", *TINY, "arm=dfa", "--json").json["run_dir"]
    said = odfa("align", run_dir, "--json")
    assert said.code == 0
    assert [block["name"] for block in said.json["blocks"]] == ["blocks.0", "blocks.1"]
    for block in said.json["blocks"]:
        assert -1 <= block["cosine"] <= 1
        assert block["norm"] > 0
        assert block["true_norm"] > 0
    assert "blocks.1" in odfa("align", run_dir).out


def test_compare(odfa, tmp_path):
    said = odfa("compare", *TINY, "arms=bp,shallow", "seeds=2", "tries=2", "--json")
    assert said.code == 0
    assert {row["arm"] for row in said.json["rows"]} == {"bp", "shallow"}
    assert (tmp_path / said.json["table"]).exists()
    assert (tmp_path / said.json["figure"]).exists()
    shown = odfa("compare", *TINY, "arms=bp,shallow", "seeds=2", "tries=2")
    assert shown.code == 0
    assert said.json["table"] in shown.out
    assert said.json["figure"] in shown.out
    assert "backprop" in shown.out
