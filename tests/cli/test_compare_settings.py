"""`arms=` with settings of single arms, by the command line: runs, folders, tables, figures, reuse."""

import json
from itertools import pairwise
from pathlib import Path

import matplotlib.colors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odfa import recipes
from odfa.lab.comparison import Comparison, Trial
from odfa.lab.figures.panels import styles_of
from odfa.lab.trials import run_dir_of
from odfa.store import RunResult

ARMS = ("bp", "shallow", "odfa", "odfa+head_share=4", "dfa:exact+scale=5e-1+learning_rate=0.02")
COMPARE = ("compare", "digits_tiny", f"arms={','.join(ARMS)}", "seeds=2", "tries=2", "steps=6", "threads=1")
WORDS = st.text(st.sampled_from("abAB01.+-_:/=% é"), max_size=8).map("odfa+x={}".format)


def test_an_arm_with_settings_is_an_arm_like_the_others(odfa):
    said = odfa(*COMPARE, "--json", "--run-dir", "all")
    assert said.code == 0, said.err
    found = said.json
    assert [row["arm"] for row in found["rows"]] == [arm for arm in ARMS for _ in range(2)]
    assert set(found["summary"]) == set(found["gap_closed"]) == set(found["learning_rates"]) == set(ARMS)
    assert (found["gap_closed"]["bp"], found["gap_closed"]["shallow"]) == (1, 0)
    tried = {arm: [one["learning_rate"] for one in rates["tries"]] for arm, rates in found["learning_rates"].items()}
    assert tried["odfa+head_share=4"] == tried["odfa"] != tried[ARMS[4]] == [0.0115, 0.0346]
    kept = {path.parent.name: json.loads(path.read_text()) for path in Path("all").glob("*/config.json")}
    assert len(kept) == len(ARMS) * 3
    assert {tree["feedback"]["head_share"] for name, tree in kept.items() if name.startswith("odfa+")} == {4}
    assert {tree["feedback"]["head_share"] for name, tree in kept.items() if name.startswith("odfa-")} == {1}
    assert {tree["rule"]["scale"] for name, tree in kept.items() if name.startswith("dfa-exact+")} == {0.5}
    lines = Path("all/table.md").read_text().splitlines()
    assert [arm for arm in ARMS if not any(line.startswith(f"| {arm} |") for line in lines)] == []
    picture = Path("all/comparison.png").read_bytes()

    again = odfa(*COMPARE, "--json", "--run-dir", "all")
    assert again.json == found
    assert "reused 15 finished runs in all" in again.err
    assert Path("all/comparison.png").read_bytes() == picture

    # an arm is its runs, whatever stands beside it
    alone = odfa("compare", "digits_tiny", "arms=bp,shallow,odfa", *COMPARE[3:], "--json", "--run-dir", "alone").json
    for part in ("summary", "gap_closed", "learning_rates"):
        assert alone[part] == {arm: found[part][arm] for arm in ARMS[:3]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("arms=odfa,odfa+scale=1",), "odfa: arms: odfa and odfa+scale=1 are the same run"),
        (("arms=odfa,odfa+scale=3", "scale=3"), "odfa: arms: odfa and odfa+scale=3 are the same run"),
        (("arms=bp,odfa+scale=3", "scale=2"), "scale=2: the arms bp,odfa+scale=3 settle this by their names, or have"),
        (("arms=bp,odfa+rank=2",), "odfa: arms: odfa+rank=2: unknown setting 'rank'; these have it: rule=aligned"),
        (("arms=odfa+widths=64,64,bp",), "a comma ends an arm, so a value that has one is written beside arms="),
        (("arms=bp,odfa+rank=3", "rank=2"), "unknown setting 'rank'"),
    ],
)
def test_what_is_refused_is_told_in_one_line(odfa, words, told):
    said = odfa("compare", "digits_tiny", *words, "seeds=1", "tries=1", "steps=2", "--run-dir", "none")
    assert (said.code, told in said.complaint) == (2, True), said.complaint
    assert not Path("none").exists()


def test_the_help_tells_of_them(odfa, capsys):
    with pytest.raises(SystemExit):
        odfa("compare", "--help")
    assert "+key=value" in " ".join(capsys.readouterr().out.split())


@given(WORDS, WORDS)
def test_folders_are_safe_and_distinct(one: str, other: str) -> None:
    config = recipes.get("digits_tiny", "odfa")
    names = [run_dir_of(word, config, Path("all")).name for word in (one, other)]
    assert (names[0].lower() == names[1].lower()) == (one == other)
    for name in names:
        assert run_dir_of(one, config, Path("all")).parent == Path("all")
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+=-")


def test_a_folder_s_name_has_an_end():
    config = recipes.get("digits_tiny", "odfa")
    names = {run_dir_of(f"odfa+x={'9' * count}", config, Path("all")).name for count in (90, 300, 301)}
    assert (len(names), max(map(len, names)) < 200) == (3, True)


def _comparison(*arms: str) -> Comparison:
    result = RunResult(
        status="complete",
        steps=1,
        metric={"name": "accuracy", "better": "higher", "value": 0.5},
        validation={},
        parameters=1,
        seconds=1.0,
        peak_memory_bytes=1,
        compute_s=1.0,
        light={},
    )
    trials = [
        Trial(arm=arm, config=recipes.get("digits_tiny", arm.partition("+")[0]), run_dir=Path(), result=result)
        for arm in arms
    ]
    return Comparison(recipe="r", metric={"name": "accuracy", "better": "higher"}, trials=trials, tries={})


@pytest.mark.parametrize("base", ["bp", "shallow", "odfa", "odfa:exact"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_lines_of_one_arm_have_one_hue_and_differ(base, count):
    words = [base, *(f"{base}+x={number}" for number in range(1, count))]
    styles = styles_of(_comparison("dfa", *words))
    assert list(styles) == ["dfa", *words]
    usual = recipes.get("digits_tiny", base)
    assert styles[base] == (usual.rule.colour, "-")
    assert styles["dfa"][1] == "--"
    hues = [matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(styles[word][0])) for word in words]
    assert max(abs(hue[0] - hues[0][0]) for hue in hues) < 0.02
    light = sorted(sum(matplotlib.colors.to_rgb(styles[word][0])) for word in words)
    assert all(after - before > 0.05 for before, after in pairwise(light))


def test_arms_that_differ_otherwise_have_the_colours_of_their_rules():
    arms = ("bp", "shallow", "dfa", "odfa", "odfa:exact", "identity")
    trials = {trial.arm: trial.config for trial in _comparison(*arms).trials}
    assert styles_of(_comparison(*arms)) == {
        arm: (tree.rule.colour, "-" if tree.projection is None else tree.projection.dashes)
        for arm, tree in trials.items()
    }
