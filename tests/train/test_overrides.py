"""Overrides are typed by the dataclasses; JSON makes the round trip."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odfa import recipes
from odfa.errors import ConfigError
from odfa.train import DataConfig, FeedbackConfig, MlpConfig, OptimizerConfig, RunConfig, overrides

_positive = st.floats(1e-6, 1e3)
_some = st.integers(1, 10**6)
_configs = st.builds(
    RunConfig,
    recipe=st.text(max_size=8),
    task=st.sampled_from(["digits", "fashion"]),
    method=st.sampled_from(["bp", "shallow", "dfa", "tdfa", "odfa", "identity"]),
    rule=st.sampled_from(["random", "aligned", "electronic"]),
    seed=st.integers(0, 2**63 - 1),
    epochs=_some,
    batch_size=_some,
    checkpoint_every=st.none() | _some,
    tensorboard=st.booleans(),
    model=st.builds(MlpConfig, widths=st.lists(_some, min_size=1, max_size=4).map(tuple), activation=st.just("gelu")),
    data=st.builds(DataConfig, path=st.none() | st.text(), validation=_some, limit=st.none() | _some),
    optimizer=st.builds(
        OptimizerConfig, learning_rate=_positive, betas=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9))
    ),
    feedback=st.builds(
        FeedbackConfig, seed=st.integers(0, 2**63 - 1), rank=st.none() | _some, shared=st.booleans(), scale=_positive
    ),
)


@given(_configs)
def test_json_round_trip(config: RunConfig) -> None:
    again = overrides.from_dict(json.loads(json.dumps(overrides.to_dict(config))))
    assert again == config
    assert overrides.digest(again) == overrides.digest(config)


@given(_configs, _configs)
def test_digests_tell_configs_apart(one: RunConfig, other: RunConfig) -> None:
    assert (one == other) == (overrides.digest(one) == overrides.digest(other))


@given(rate=_positive, seed=st.integers(0, 2**63 - 1), widths=st.lists(_some, min_size=1, max_size=5))
def test_values_arrive_as_written(rate: float, seed: int, widths: list[int]) -> None:
    typed = [f"optimizer.learning_rate={rate!r}", f"seed={seed}", f"widths={','.join(map(str, widths))}"]
    config = overrides.apply(recipes.digits(), typed)
    assert (config.optimizer.learning_rate, config.seed, config.model.widths) == (rate, seed, tuple(widths))


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("learning_rate=1", "optimizer.learning_rate", 1.0),
        ("learning_rate=1e-3", "optimizer.learning_rate", 0.001),
        ("seed=3", "seed", 3),
        ("feedback.seed=3", "feedback.seed", 3),
        ("opu=ideal", "feedback.opu", "ideal"),
        ("opu=opu-2021", "feedback.opu", "opu-2021"),
        ("shared=true", "feedback.shared", True),
        ("shared=False", "feedback.shared", False),
        ("limit=none", "data.limit", None),
        ("rank=none", "feedback.rank", None),
        ("rank=3", "feedback.rank", 3),
        ("limit=64", "data.limit", 64),
        ("clip_norm=1", "optimizer.clip_norm", 1.0),
        ("path=/a=b", "data.path", "/a=b"),
        ("widths=64,32", "model.widths", (64, 32)),
        ("widths=(64,)", "model.widths", (64,)),
        ("betas=0.8, 0.9", "optimizer.betas", (0.8, 0.9)),
        (" epochs = 2 ", "epochs", 2),
    ],
)
def test_leaf_names_and_types(override: str, path: str, value: Any) -> None:
    before = recipes.digits()
    config: Any = overrides.apply(before, [override])
    changed = config
    for part in path.split("."):
        changed = getattr(changed, part)
    assert changed == value
    assert type(changed) is type(value)
    rest = {key for key in overrides.keys(before) if _get(config, key) != _get(before, key)}
    assert rest <= {path}


def _get(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rate", "expected key=value"),
        ("learing_rate=1", "did you mean optimizer.learning_rate"),
        ("optimiser.learning_rate=1", "did you mean optimizer.learning_rate"),
        ("lr=1", "unknown setting 'lr'"),
        ("=1", "unknown setting ''"),
        ("optimizer=adam", "unknown setting 'optimizer'"),
        ("learning_rate=fast", "expected a finite number, got 'fast'"),
        ("learning_rate=nan", "expected a finite number"),
        ("learning_rate=inf", "expected a finite number"),
        ("learning_rate=-1", "expected a positive number"),
        ("seed=1.5", "expected an integer, got '1.5'"),
        ("seed=true", "expected an integer"),
        ("seed=none", "expected an integer"),
        ("seed=-1", r"seed: expected a number in \[0, 2\^63\), got -1"),
        ("feedback.seed=-1", r"feedback.seed: expected a number in \[0, 2\^63\)"),
        (f"seed={2**63}", "expected an integer of 64 bits"),
        (f"limit={2**80}", "expected an integer of 64 bits"),
        ("widths=4194304", "widths up to 1048576"),
        ("repeats=10001", "1 to 10000"),
        ("recipe=other", "recipe is settled by the recipe, got 'recipe=other'"),
        ("task=fashion", "task is settled by the recipe"),
        ("shared=1", "expected true or false, got '1'"),
        ("method=odffa", "expected bp or shallow or dfa or tdfa or odfa or identity, got 'odffa'"),
        ("widths=64,x", "expected an integer, got 'x'"),
        ("widths=", "expected an integer"),
        ("widths=0", "one or more positive widths"),
        ("betas=0.9", "expected 2 values"),
        ("epochs=0", "epochs: expected a positive number, got 0"),
        ("threshold=1.5", r"expected a number in \(0, 1\)"),
    ],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        overrides.apply(recipes.digits(), [override])
    assert "\n" not in str(caught.value)


def test_ambiguous_leaf_names_are_refused() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Two:
        one: MlpConfig = dataclasses.field(default_factory=MlpConfig)
        other: MlpConfig = dataclasses.field(default_factory=MlpConfig)

    with pytest.raises(ConfigError, match=r"one\.widths or other\.widths"):
        overrides.apply(Two(), ["widths=3"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean epochs"),
        ({"epochs": 3.5}, "expected an integer"),
        ({"epochs": True}, "expected an integer"),
        ({"tensorboard": 1}, "expected true or false"),
        ({"model": 3}, "model: expected an object"),
        ({"model": {"widths": [1, "2"]}}, "expected an integer"),
        ({"optimizer": {"learning_rate": "1"}}, "expected a finite number"),
    ],
)
def test_json_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        overrides.from_dict({**overrides.to_dict(recipes.digits()), **change})


def test_missing_json_keys_take_defaults_or_are_named() -> None:
    assert overrides.from_dict({"recipe": "a", "task": "digits"}) == RunConfig(recipe="a", task="digits")
    with pytest.raises(ConfigError, match="recipe"):
        overrides.from_dict({"task": "digits"})


def test_every_setting_is_explained_on_the_line_under_it() -> None:
    import ast
    import inspect

    from odfa.train import config

    for node in ast.parse(inspect.getsource(config)).body:
        if isinstance(node, ast.ClassDef):
            for field, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign):
                    assert isinstance(after, ast.Expr), f"{node.name}: {ast.unparse(field)} has no explanation"
