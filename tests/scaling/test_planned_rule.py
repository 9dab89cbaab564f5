"""A recipe's own rule is what dfa and odfa of a plan are; what the plan assumes instead of the recipe is said."""

from dataclasses import dataclass, replace

import pytest

from odfa import recipes
from odfa.cli import main
from odfa.engine import RandomFeedback
from odfa.errors import ConfigError
from odfa.scaling import PlanSettings, make_plan
from odfa.scaling.plan import _fine, subject
from odfa.session import RunConfig
from odfa.session.handle import num_inputs, num_projected

HERE = "tests.scaling.test_planned_rule"


@dataclass(frozen=True, kw_only=True)
class Kp(RandomFeedback):
    """A rule of another package: one slice for all blocks."""

    shared: bool = True


def _ruled(word: str) -> RunConfig:
    return recipes.worded("digits_tiny", ["arm=odfa", f"rule={word}"])[1]


def own() -> RunConfig:
    """By a rule of one's own."""
    return _ruled(f"{HERE}:Kp")


def aligned() -> RunConfig:
    """By the aligned head."""
    return _ruled("aligned")


def exact() -> RunConfig:
    """By a rule that projects at the start alone."""
    return _ruled("exact")


def electronic() -> RunConfig:
    """By the same, with a low rank."""
    return _ruled("electronic")


def drtp() -> RunConfig:
    """By projected labels."""
    return _ruled("drtp")


def learned() -> RunConfig:
    """By matrices that start from the projection's."""
    return recipes.get("digits_tiny", "dfa:kolen_pollack")


def followed() -> RunConfig:
    """By a head that is held within low rank at every step."""
    return _ruled("low_rank")


def random() -> RunConfig:
    """By random feedback."""
    return _ruled("random")


def shallow() -> RunConfig:
    """By the head alone."""
    return recipes.get("digits_tiny", "shallow")


def backprop() -> RunConfig:
    """By backpropagation."""
    return recipes.get("digits_tiny", "bp")


def hadamard() -> RunConfig:
    """By a structured matrix."""
    return recipes.worded("digits_tiny", ["arm=dfa", "projection=hadamard"])[1]


def on_the_fly() -> RunConfig:
    """By a Gaussian matrix that is not stored."""
    return recipes.worded("digits_tiny", ["arm=dfa", "projection.stored=false"])[1]


def grouped() -> RunConfig:
    """Fed at every second block."""
    return replace(recipes.worded("digits", ["arm=odfa", "feedback.group=2"])[1], seed=3)


@pytest.mark.parametrize(
    "make", [own, aligned, exact, electronic, drtp, random, grouped], ids=lambda make: make.__name__
)
def test_vectors_and_widths_are_those_of_the_recipes_rule(make) -> None:
    run, page = make(), make_plan(f"{HERE}:{make.__name__}", PlanSettings())
    shape = run.data.peek()
    outputs, rows = run.network.num_outputs(shape), run.batch_size * run.network.num_rows(shape)
    # what the rule measures once, when it starts, is no part of a step
    vectors = run.rule.num_vectors(rows, num_outputs=outputs) - run.rule.num_vectors(0, num_outputs=outputs)
    assert page["rows_per_step"] == rows
    (odfa,) = (row for row in page["methods"] if row["method"] == "odfa")
    assert odfa["light"]["frames"] == 2 * vectors
    assert odfa["tokens_per_s"] == rows / odfa["step_s"]
    if vectors:
        assert page["projection"] == {"inputs": num_inputs(run, shape), "outputs": num_projected(run, shape)}
    else:
        assert (odfa["parts_s"]["light"], page["projection"]["outputs"]) == (0, 0)


def test_a_rule_that_projects_nothing_in_a_step_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"{HERE}:exact"]) == 0
    assert "a step of 25 error rows; its rule projects none of them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (shallow, "planned with rule=random, as rule=shallow of the recipe projects nothing"),
        (backprop, "planned with rule=random, as rule=backprop of the recipe projects nothing"),
        (hadamard, "planned with a dense matrix, not with projection=hadamard of the recipe"),
        (on_the_fly, "planned with a stored matrix, not with projection.stored=false of the recipe"),
        (learned, "planned with rule=random: what rule=kolen_pollack computes beside the projection"),
        (followed, "planned with rule=aligned: what rule=low_rank computes beside the projection"),
        (drtp, "planned with rule=random: what rule=drtp computes beside the projection"),
        (random, "the recipe's encoder=stochastic and demodulator=phase take 8 frames"),
    ],
)
def test_what_is_assumed_instead_of_the_recipes_is_said(make, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{HERE}:{make.__name__}"
    assert any(told in sentence for sentence in make_plan(name, PlanSettings())["assumed"])
    assert main(["plan", name]) == 0
    assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "word",
    ["rule=my:Kp", "rule.scale=2", "projection=hadamard", "projection.opu=ideal", "arm=dfa", "seed=1"],
)
def test_a_plan_is_told_no_rule(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "digits_tiny", word]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"odfa: {word.partition('=')[0]}: a plan compares bp, dfa and odfa, with checkpointing")
    assert len(said) < 400


def test_the_batch_of_a_run_is_told_in_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "digits_tiny", "batch_size=10"]) == 2
    assert "expected tokens=N, got batch_size=10" in capsys.readouterr().err
    assert main(["plan", "digits_tiny", "tokens=10"]) == 0


def test_a_name_that_is_near_to_nothing_gets_a_short_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "gpt2", "zzz=1"]) == 2
    said = capsys.readouterr().err
    listed = "tokens, context, granularity, hops, hop_every, head_rows, layout, processor, opu and "
    assert f"unknown setting 'zzz'; settings: {listed}" in said
    assert "more (--help lists them)" in said
    assert len(said) < 200


def test_how_often_hops_are_computed_is_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match="hop_every: expected 1, as hops=0 computes none, got 2"):
        subject("gpt:2x64", PlanSettings(hop_every=2))
    with pytest.raises(ConfigError, match="hop_every: expected 1, as hops=0 computes none, got 2"):
        _fine(recipes.whole("deep_gpt"), PlanSettings(hops=0, hop_every=2))
    assert _fine(recipes.whole("deep_gpt"), PlanSettings(hop_every=2)).rule.hop_every == 2
    with pytest.raises(ConfigError, match="which cannot hop"):
        _fine(recipes.whole("digits_tiny"), PlanSettings(hop_every=2))


@pytest.mark.parametrize("every", [0, -1])
def test_a_plan_counts_passes_between_hops(every: int) -> None:
    with pytest.raises(ConfigError, match="hop_every: expected a positive number"):
        PlanSettings(hops=1, hop_every=every)
