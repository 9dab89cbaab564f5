"""Settings of one arm of a comparison: ARM+key=value is the run that `odfa train RECIPE arm=ARM key=value` trains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odfa import recipes, settings
from odfa.arms import ARMS, arm, check_apart, parted, trees
from odfa.errors import ConfigError

BASES = [*ARMS, "dfa:random", "odfa:exact", "rule:tests.recipes.own_matrices:OwnMatrices"]
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}(\.[a-z_][a-z0-9_]{0,8}){0,2}", fullmatch=True)
VALUES = st.text(st.sampled_from("abz019+-.:=/ ,eE"), max_size=12).filter(lambda value: not parted(f"x{value}")[1])
OWN = st.lists(st.builds("{}={}".format, KEYS, VALUES).filter(lambda one: not parted(f"x+{one}")[1][1:]), max_size=4)


def _refusal(words: list[str], beside: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as refused:
        check_apart(trees(recipes.whole("digits_tiny"), words, beside))
    return str(refused.value)


@given(st.sampled_from(BASES), OWN)
def test_a_word_comes_apart_as_it_was_put_together(name: str, own: list[str]) -> None:
    assert parted("+".join([name, *own])) == (name, own)


@given(st.text(max_size=40))
def test_the_parts_of_any_text_make_it_whole_again(text: str) -> None:
    name, own = parted(text)
    assert "+".join([name, *own]) == text
    assert all("=" in setting for setting in own)


@pytest.mark.parametrize("value", ["1e+3", "+1", "a+b", "1e+3+2", "+", "x+3y=z"])
def test_a_plus_in_a_value_is_the_value_s(value: str) -> None:
    assert parted(f"odfa+rule.scale={value}+b=2") == ("odfa", [f"rule.scale={value}", "b=2"])


@pytest.mark.parametrize(
    ("recipe", "name", "own"),
    [
        ("digits_tiny", "odfa", ["scale=0.5"]),
        ("digits_tiny", "odfa:exact", ["scale=5e+1", "head_share=2"]),
        ("digits_tiny", "dfa", ["projection=hadamard", "projection.seed=3"]),
        ("digits_tiny", "tdfa", ["encoder.repeats=3", "encoder=sampled"]),
        ("digits_tiny", "bp", ["optimizer.learning_rate=0.3", "batch_size=20"]),
        ("digits_tiny", "odfa", ["rule=exact"]),
        ("dialogue_tiny", "odfa", ["rank=4"]),
        ("dialogue_tiny", "dfa", ["rank=4", "granularity=linear", "network.layers=2"]),
    ],
)
def test_the_tree_is_that_of_training_with_the_same_words(recipe: str, name: str, own: list[str]) -> None:
    word = "+".join([name, *own])
    made = trees(recipes.whole(recipe), [name, word])
    assert made[word] == recipes.worded(recipe, [f"arm={name}", *own])[1]
    assert made[name] == arm(recipes.whole(recipe), name) != made[word]
    check_apart(made)


def test_settings_beside_reach_what_an_arm_has_not_itself() -> None:
    words = ["bp", "odfa", "odfa+scale=3", "dfa+every=3+rule=aligned"]
    made = trees(recipes.whole("digits_tiny"), words, ["rule.scale=2", "rule.rank=5"])
    assert [getattr(tree.rule, "scale", None) for tree in made.values()] == [None, 2, 3, 2]
    assert (made["dfa+every=3+rule=aligned"].rule.every, made["dfa+every=3+rule=aligned"].rule.rank) == (3, 5)


def test_what_an_arm_s_name_settles_stays() -> None:
    made = trees(recipes.whole("digits_tiny"), ["identity+scale=2"], ["rule.shared=false"])
    assert (made["identity+scale=2"].rule.shared, made["identity+scale=2"].rule.scale) == (True, 2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "bp+rule=random",
            "arms: bp+rule=random: rule=random would make it the arm dfa; say dfa instead, or leave rule",
        ),
        ("bp odfa+projection=gaussian", "odfa+projection=gaussian: projection=gaussian would make it the arm dfa"),
        ("dfa+projection=identity", "would make it the tree of no arm; leave projection=identity out"),
        ("dfa:random+rule=exact", "rule=exact would make it the arm dfa"),
        ("odfa+scael=2", "odfa+scael=2: unknown setting 'scael'; did you mean rule.scale"),
        ("odfa+learning-rate=2", "unknown setting 'learning-rate'; did you mean optimizer.learning_rate?"),
        ("odfa+rank=2", "unknown setting 'rank'; these have it: rule=aligned"),
        ("odfa+scale=big", "odfa+scale=big: rule.scale: expected a finite number, got 'big'"),
        ("odfa+seed=x", "seed: expected an integer, got 'x'"),
        ("odfa+scale=2+rule.scale=3", "rule.scale: expected once, got '2' and '3'"),
        ("bp+projection.seed=3", "rule=backprop projects nothing, so there is no projection to set; leave it out"),
        ("odfa+steps=20+evaluate_every=30", "evaluate_every: the run ends after 20 steps"),
        ("odfa+arm=bp", "unknown setting 'arm'"),
        ("odfa+recipe=digits", "recipe is settled by the recipe"),
        ("odfa+seed=3", "odfa+seed=3: seed: expected no setting of one arm; seeds= counts the seeds"),
        ("odfa+limit=100", "data.limit: expected no setting of one arm; all arms of a comparison have the same data"),
        ("odfa+scale", "got 'odfa+scale'; a setting of one arm is written ARM+key=value"),
        ("nothing+scale=2", "arms: expected some of bp,"),
        ("+scale=2", "arms: expected some of bp,"),
        ("odfa+widths=3 4 bp", "expected an arm behind odfa+widths=3, got '4'; a comma ends an arm"),
        ("odfa+out=a\x07", "arms: expected printable letters, got 'odfa+out=a\\x07'"),
        ("odfa odfa", "arms: expected each of them once"),
        ("odfa odfa+scale=1", "arms: odfa and odfa+scale=1 are the same run, scale=1 changes nothing"),
        ("odfa+scale=1 odfa", "arms: odfa+scale=1 and odfa are the same run, scale=1 changes nothing"),
        ("odfa+scale=2 bp odfa+rule.scale=2.0", "odfa+scale=2 and odfa+rule.scale=2.0 are the same run"),
        ("dfa:exact dfa+rule=exact", "dfa:exact and dfa+rule=exact are the same run"),
    ],
)
def test_what_is_refused(words: str, told: str) -> None:
    assert told in _refusal(words.split(" "))


def test_arms_that_settings_beside_make_equal_are_refused_and_others_are_told_apart() -> None:
    assert "are the same run" in _refusal(["odfa", "odfa+scale=3"], ("rule.scale=3",))
    check_apart(trees(recipes.whole("digits_tiny"), ["odfa", "odfa+scale=1"], ("rule.scale=3",)))
    check_apart(trees(recipes.whole("digits_tiny"), ["dfa", "dfa:random"]))  # the recipe's own rule, as always


def test_one_run_takes_its_settings_beside_its_arm() -> None:
    told = (
        "arm: expected an arm alone, got odfa+scale=2+epochs=3; write its settings beside it: arm=odfa scale=2 epochs=3"
    )
    with pytest.raises(ConfigError) as refused:
        recipes.worded("digits_tiny", ["arm=odfa+scale=2+epochs=3"])
    assert str(refused.value) == told


def test_changes_are_those_that_the_second_tree_reads() -> None:
    tree = recipes.get("digits_tiny", "odfa")
    assert not settings.changes(tree, tree)
    assert settings.changes(tree, settings.apply(tree, ["scale=2"]))
    short = settings.apply(tree, ["steps=2"])
    assert not settings.changes(short, settings.apply(short, ["epochs=3"], heard=False))
