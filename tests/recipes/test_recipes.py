"""Recipes are functions that return a config, and each has a tiny sibling of the same task."""

import json
from pathlib import Path

import pytest

from odfa import recipes
from odfa.arms import arm
from odfa.errors import ConfigError
from odfa.session import RunConfig
from odfa.settings import from_dict, tag_of, to_dict


@pytest.mark.parametrize("name", recipes.listed())
def test_a_recipe_knows_its_own_name(name: str) -> None:
    assert recipes.get(name).recipe == name
    config = recipes.get(name)
    config.task.check_data(config.data)
    config.task.check_network(config.network)
    assert recipes.whole(name) == recipes.listed()[name].make()
    assert recipes.get(name) == arm(recipes.whole(name), recipes.listed()[name].arm)


@pytest.mark.parametrize("name", [name for name in recipes.listed() if not name.endswith("_tiny")])
def test_every_recipe_has_a_tiny_sibling(name: str) -> None:
    """Of its own, or of its family: dialogue_gpt and its larger sisters share dialogue_tiny."""
    sibling = f"{name}_tiny" if f"{name}_tiny" in recipes.listed() else f"{name.partition('_')[0]}_tiny"
    full, tiny = recipes.whole(name), recipes.whole(sibling)
    assert (full.task, tag_of(full.rule)) == (tiny.task, tag_of(tiny.rule))
    assert tiny.data.limit is not None


@pytest.mark.parametrize(
    ("typed", "meant"), [("digit", "digits"), ("fashion", "fashion_mlp"), ("fashion-mlp", "fashion_mlp")]
)
def test_unknown_names_are_answered_with_near_ones(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=meant):
        recipes.get(typed)


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(ConfigError, match="digits or digits_tiny or fashion_mlp or fashion_mlp_tiny"):
        recipes.get("zzz")


def test_recorded_runs_can_be_read() -> None:
    recorded = sorted((Path(__file__).parents[2] / "docs" / "results").rglob("config.json"))
    assert len(recorded) > 100
    for file in recorded:
        values = json.loads(file.read_text())
        config = from_dict(values, RunConfig)
        assert to_dict(config) == values
        config.task.check_data(config.data)
        config.task.check_network(config.network)
