"""What stands behind `arm=` names the run: words that would make another arm's tree of it are refused."""

import pytest

from odfa import recipes
from odfa.arms import arm, name_of, settles
from odfa.cli.train import default_run_dir
from odfa.engine.rules import ExactHead
from odfa.errors import ConfigError

OWN = "tests.recipes.own_matrices:OwnMatrices"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("arm=bp rule=random", "arm=bp: rule=random would make it the arm dfa; say arm=dfa instead, or leave rule"),
        ("arm=odfa rule=shallow", "the arm shallow; say arm=shallow instead"),
        ("arm=odfa projection=gaussian", "projection=gaussian would make it the arm dfa"),
        ("arm=tdfa encoder=none", "the arm dfa"),
        ("arm=dfa encoder=sampled", "the arm tdfa"),
        ("arm=odfa:random rule=exact", "arm=odfa:random: rule=exact would make it the arm odfa"),
        ("arm=identity projection=gaussian", "the arm dfa"),
        (
            "arm=dfa seed=3 projection=identity",
            "identity would make it the tree of no arm; leave arm=dfa out",
        ),
        (f"arm=dfa rule={OWN}", f"the arm rule:{OWN}; say arm=rule:{OWN} instead"),
        ("arm=dfa arm=odfa", "arm: expected once, got 'dfa' and 'odfa'"),
        ("seed=1 seed=2", "seed: expected once, got '1' and '2'"),
        ("learning_rate=1 optimizer.learning_rate=2", "optimizer.learning_rate: expected once"),
        ("rule=exact rule=random", "rule: expected once"),
        ("epochs=1 steps=24", "steps=24 says how long the run is"),
        ("steps=24 epochs=1", "steps=24 says how long the run is"),
        ("steps=24 evaluate_every=25", "evaluate_every: the run ends after 24 steps"),
        ("align_every=25 steps=24", "align_every: the run ends after 24 steps"),
    ],
)
def test_words_that_count_for_nothing_or_name_another_arm(words: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        recipes.worded("digits_tiny", words.split())
    assert told in str(refused.value), refused.value


@pytest.mark.parametrize(
    "words",
    [
        "arm=dfa projection=hadamard projection.seed=3",
        "arm=odfa rule=exact",
        "arm=odfa encoder=sampled",
        "arm=tdfa:random rule.scale=0.5",
        "arm=identity rule.scale=2",
        "arm=bp learning_rate=0.1",
        f"arm=rule:{OWN} rule.strength=2",
    ],
)
def test_words_that_refine_an_arm(words: str) -> None:
    named, config = recipes.worded("digits_tiny", words.split())
    assert f"arm={named}" == words.split()[0]
    assert settles(named, config)
    assert default_run_dir("digits_tiny", named, config).name.startswith(
        f"digits_tiny-{named.replace(':', '-')}-seed0-"
    )


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("rule=shallow", "digits_tiny-shallow-seed0"),
        ("projection=optical", "digits_tiny-odfa-seed0"),
        (f"rule={OWN}", "digits_tiny-rule-tests.recipes.own_matrices-OwnMatrices-seed0"),
        ("seed=4", "digits_tiny-dfa-seed4"),
    ],
)
def test_without_an_arm_a_run_is_named_by_what_it_is(words: str, folder: str) -> None:
    assert default_run_dir("digits_tiny", *recipes.worded("digits_tiny", words.split())).name == folder


def test_a_tree_of_no_arm_is_named_by_its_projection() -> None:
    named, config = recipes.worded("digits_tiny", ["projection=identity"])
    assert named == "projection:identity"
    assert default_run_dir("digits_tiny", named, config).name.startswith("digits_tiny-projection-identity-seed0-")


def test_a_rule_without_a_projection_is_an_arm() -> None:
    run = recipes.whole("digits_tiny")
    tree = arm(run, f"rule:{OWN}")
    assert (tree.projection, name_of(tree)) == (None, f"rule:{OWN}")
    assert not settles(f"rule:{OWN}", run.changed("rule", ExactHead()))
    with pytest.raises(ConfigError, match=f"which projects nothing; name another rule, or rule:{OWN} for this one"):
        arm(run, f"dfa:{OWN}")
    with pytest.raises(ConfigError, match="which projects the error; name dfa:random or tdfa:random or odfa:random"):
        arm(run, "rule:random")
    with pytest.raises(ConfigError, match="or rule:RULE, got 'rule'"):
        arm(run, "rule")
