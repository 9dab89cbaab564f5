"""What is said about a setting that is not there: only names that are near, few of them, and why a part is none."""

import re

import pytest

from odfa import recipes, settings
from odfa.errors import ConfigError
from odfa.scaling.actions import ScalingSettings
from odfa.session import RunConfig

FAR = "unknown setting '[a-z]*'; settings: [a-z_, ]+ and [0-9]+ more .--help lists them.$"


def _told(arm: str, *words: str) -> str:
    with pytest.raises(ConfigError) as refused:
        settings.apply(recipes.get("digits_tiny", arm), words)
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 320
    return text


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("nope=1", FAR),
        ("=1", FAR),
        ("decay=1", "did you mean optimizer.weight_decay[?]"),
        ("rule.decay=1", "settings: rule.scale, rule.per_sample, rule.batch_axes"),
        ("rule.learning_rate=1", "did you mean optimizer.learning_rate[?]"),
        ("projektion.seed=1", "did you mean projection.seed[?]"),
        ("seedd=1", "did you mean seed[?]"),
        ("rate=1", "did you mean optimizer.learning_rate[?]"),
    ],
)
def test_only_near_names_are_given(word: str, told: str) -> None:
    assert re.search(told, _told("dfa", word))


@pytest.mark.parametrize("word", ["models=zzz", "nope=1"])
def test_no_name_is_given_where_none_is_near(word: str) -> None:
    with pytest.raises(ConfigError, match=FAR):
        settings.apply(ScalingSettings(), [word])


@pytest.mark.parametrize(
    ("arm", "words", "told"),
    [
        ("shallow", ["projection=hadamard"], "projection: expected none with rule=shallow, got hadamard"),
        (
            "dfa",
            ["projection=none"],
            "one of gaussian, hadamard, identity, optical, rademacher with rule=random, got none",
        ),
        ("shallow", ["feedback=default"], "feedback: expected none with rule=shallow, got settings"),
        ("dfa", ["feedback=none"], "feedback: expected default, or settings, with rule=random, got none"),
        (
            "shallow",
            ["feedback.group=2"],
            "feedback.group: rule=shallow feeds no block, so there is no feedback to place",
        ),
        ("shallow", ["group=2"], "group: rule=shallow feeds no block"),
        (
            "bp",
            ["projection.seed=3"],
            "projection.seed: rule=backprop projects nothing, so there is no projection to set",
        ),
    ],
)
def test_a_part_that_a_rule_has_not_is_named_in_words(arm: str, words: list[str], told: str) -> None:
    assert told in _told(arm, *words)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"foo": 1}, r"unknown setting 'foo'; none of the \d+ settings of RunConfig has a similar name$"),
        (
            {"rule": {"type": "random", "decay": 1}},
            "'rule.decay', which type random does not have; it has rule.scale, ",
        ),
        ({"rule": {"type": "random", "shard": True}}, "type random does not have; did you mean rule.shared[?]"),
        ({"memory": {"x": 1}}, "'memory.x'; it has memory.activations, memory.fused, memory.precision, memory.storage"),
    ],
)
def test_an_unknown_key_of_json_is_told_in_full(change: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings.from_dict({**settings.to_dict(recipes.get("digits_tiny")), **change}, RunConfig)
