"""Which word of a comparison reaches which arm, and why one that reaches none is refused."""

import json
from pathlib import Path

import pytest

from odfa import recipes
from odfa.cli.arm_words import CompareWords, of_arms

OWN = "tests.recipes.own_matrices:OwnMatrices"
DRTP = "tests.engine.outside_rules:Drtp"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("arms=bp,dfa", f"rule={OWN}"), f"already; name an arm by this rule, such as rule:{OWN}, among arms="),
        (("arms=bp,dfa", "rule=shallow"), "such as shallow, among arms="),
        (("arms=bp", "rule=exact"), "such as dfa:exact, among arms="),
        (("arms=dfa,odfa", "projection=gaussian"), "settle this by their names, or have it so already"),
        (("arms=bp,dfa", "rule.strength=0.1"), "unknown setting 'rule.strength'"),
        (("arms=bp,shallow", "rule.scale=2"), "none of the arms bp,shallow has this setting"),
        (("arms=bp,dfa", "arms=odfa"), "arms: expected once"),
        (("arms=bp,dfa", "feedback.group=99"), "feedback.group: expected at most 2, the blocks of this"),
    ],
)
def test_a_word_that_reaches_no_arm_says_why(odfa, words, told):
    said = odfa("compare", "digits_tiny", *words, "seeds=1", "tries=1", "steps=2")
    assert (said.code, told in said.complaint) == (2, True), said.complaint


def test_settings_of_a_rule_reach_every_arm_that_has_them():
    words = [f"arms=bp,dfa,identity,dfa:{DRTP},rule:{OWN}", "rule.strength=0.7", "rule.scale=3", "rule.shared=false"]
    trees = of_arms(CompareWords(run=recipes.whole("digits_tiny")), words)
    strengths = {arm: getattr(tree.rule, "strength", None) for arm, tree in trees.items()}
    assert strengths == {"bp": None, "dfa": None, "identity": None, f"dfa:{DRTP}": 0.7, f"rule:{OWN}": 0.7}
    assert (trees["dfa"].rule.scale, trees["dfa"].rule.shared) == (3, False)
    assert trees["identity"].rule.shared  # what the arm's name says stays


def test_a_rule_without_a_projection_is_compared(odfa):
    words = (f"arms=bp,rule:{OWN},dfa", "rule.strength=0.2", "seeds=1", "tries=1", "steps=2", "threads=1")
    said = odfa("compare", "digits_tiny", *words, "--json", "--run-dir", "all")
    assert said.code == 0, said.err
    assert [row["arm"] for row in said.json["rows"]] == ["bp", f"rule:{OWN}", "dfa"]
    (kept,) = Path("all").glob("rule-*/config.json")
    tree = json.loads(kept.read_text())
    assert (tree["rule"]["strength"], tree["projection"]) == (0.2, None)
    assert "all: nothing is projected" in Path("all/table.md").read_text()
