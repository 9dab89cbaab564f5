"""Overrides are typed by the dataclasses; JSON makes the round trip."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odfa import recipes, settings
from odfa.cli.help import meanings
from odfa.encode import SampledSettings, SignSettings
from odfa.engine import AlignedHead, RandomFeedback
from odfa.errors import ConfigError
from odfa.project import HadamardSettings, OpticalSettings
from odfa.session import AdamSettings, FeedbackSettings, MemorySettings, OptimizerSettings, RunConfig
from odfa.tasks import AbstractData, AbstractNetwork, AbstractTask
from odfa.tasks.diffusion.diffuse import Diffuse
from odfa.tasks.vision.classify import Classify
from odfa.tasks.vision.digits import DigitsData
from odfa.tasks.vision.fashion import FashionData
from odfa.tasks.vision.mlp import MlpNetwork

_positive = st.floats(1e-6, 1e3)
_some = st.integers(1, 10**6)
_widths = st.lists(_some, min_size=1, max_size=4).map(tuple)
_paths = st.none() | st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).map(Path)
_encoders = st.builds(SampledSettings, repeats=st.integers(1, 100)) | st.builds(SignSettings)
_configs = st.builds(
    RunConfig,
    recipe=st.text(max_size=8),
    task=st.sampled_from([Classify(), Diffuse()]),
    rule=st.builds(RandomFeedback, shared=st.booleans(), scale=_positive)
    | st.builds(AlignedHead, scale=_positive, rank=st.none() | _some),
    projection=st.builds(HadamardSettings, seed=st.integers(0, 2**63 - 1), encoder=st.none() | _encoders)
    | st.builds(OpticalSettings, encoder=_encoders),
    seed=st.integers(0, 2**63 - 1),
    epochs=_some,
    batch_size=_some,
    checkpoint_every=st.none() | _some,
    tensorboard=st.booleans(),
    network=st.builds(MlpNetwork, widths=_widths, activation=st.just("gelu")),
    data=st.builds(
        FashionData,
        path=st.none() | st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).map(Path),
        validation=_some,
        limit=st.none() | _some,
    ),
    optimizer=st.builds(AdamSettings, learning_rate=_positive, betas=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9))),
    feedback=st.builds(FeedbackSettings, group=_some),
)


@given(_configs)
def test_json_round_trip(config: RunConfig) -> None:
    again = settings.from_dict(json.loads(json.dumps(settings.to_dict(config))), RunConfig)
    assert again == config
    assert settings.digest(again) == settings.digest(config)


@given(_configs, _configs)
def test_digests_tell_configs_apart(one: RunConfig, other: RunConfig) -> None:
    assert (one == other) == (settings.digest(one) == settings.digest(other))


@given(rate=_positive, seed=st.integers(0, 2**63 - 1), widths=st.lists(_some, min_size=1, max_size=5))
def test_values_arrive_as_written(rate: float, seed: int, widths: list[int]) -> None:
    typed = [f"optimizer.learning_rate={rate!r}", f"seed={seed}", f"widths={','.join(map(str, widths))}"]
    config = settings.apply(recipes.get("digits"), typed)
    assert (config.optimizer.learning_rate, config.seed, config.network.widths) == (rate, seed, tuple(widths))


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("learning_rate=1", "optimizer.learning_rate", 1.0),
        ("learning_rate=1e-3", "optimizer.learning_rate", 0.001),
        ("seed=3", "seed", 3),
        ("projection.seed=3", "projection.seed", 3),
        ("shared=true", "rule.shared", True),
        ("shared=False", "rule.shared", False),
        ("limit=none", "data.limit", None),
        ("rule.scale=0.5", "rule.scale", 0.5),
        ("head_share=2", "feedback.head_share", 2.0),
        ("limit=64", "data.limit", 64),
        ("clip_norm=1", "optimizer.clip_norm", 1.0),
        ("network.activation=relu", "network.activation", "relu"),
        ("widths=64,32", "network.widths", (64, 32)),
        ("widths=(64,)", "network.widths", (64,)),
        ("betas=0.8, 0.9", "optimizer.betas", (0.8, 0.9)),
        (" epochs = 2 ", "epochs", 2),
    ],
)
def test_leaf_names_and_types(override: str, path: str, value: Any) -> None:
    before = recipes.get("digits")
    config: Any = settings.apply(before, [override])
    changed = config
    for part in path.split("."):
        changed = getattr(changed, part)
    assert changed == value
    assert type(changed) is type(value)
    rest = {key for key in settings.keys(before) if _get(config, key) != _get(before, key)}
    assert {key for key in rest if not path.startswith(f"{key}.")} <= {path}


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
        ("optimizer=adamw", "optimizer: expected adam"),
        ("learning_rate=fast", "expected a finite number, got 'fast'"),
        ("learning_rate=nan", "expected a finite number"),
        ("learning_rate=inf", "expected a finite number"),
        ("learning_rate=-1", "expected a positive number"),
        ("seed=1.5", "expected an integer, got '1.5'"),
        ("seed=true", "expected an integer"),
        ("seed=none", "expected an integer"),
        ("seed=-1", r"seed: expected a number in \[0, 2\^63\), got -1"),
        ("projection.seed=-1", r"projection.seed: expected a number in \[0, 2\^63\)"),
        (f"seed={2**63}", "expected an integer of 64 bits"),
        (f"limit={2**80}", "expected an integer of 64 bits"),
        ("widths=4194304", "widths up to 1048576"),
        ("repeats=3", "these have it: projection.encoder=sampled, projection.encoder=stochastic"),
        ("recipe=other", "recipe is settled by the recipe, got 'other'"),
        ("task=fashion", "task: expected .*got 'fashion'"),
        ("shared=1", "expected true or false, got '1'"),
        ("rule=randm", "rule: expected random"),
        ("machine=cuda", "unknown setting 'machine'"),
        ("rank=3", "these have it: rule=aligned, rule=electronic"),
        ("widths=64,x", "expected an integer, got 'x'"),
        ("widths=", "one or more positive widths"),
        ("widths=0", "one or more positive widths"),
        ("betas=0.9", "expected 2 values"),
        ("epochs=0", "epochs: expected a positive number, got 0"),
        ("head_share=0", "head_share: expected a positive number, got 0"),
    ],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        settings.apply(recipes.get("digits"), [override])
    assert "\n" not in str(caught.value)


def test_ambiguous_leaf_names_are_refused() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Two(settings.Settings):
        one: MlpNetwork = dataclasses.field(default_factory=MlpNetwork)
        other: MlpNetwork = dataclasses.field(default_factory=MlpNetwork)

    with pytest.raises(ConfigError, match=r"one\.widths or other\.widths"):
        settings.apply(Two(), ["widths=3"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean epochs"),
        ({"epochs": 3.5}, "expected an integer"),
        ({"epochs": True}, "expected an integer"),
        ({"tensorboard": 1}, "expected true or false"),
        ({"network": 3}, "network: expected an object"),
        ({"network": {"type": "mlp", "widths": [1, "2"]}}, "expected an integer"),
        ({"optimizer": {"type": "adam", "learning_rate": "1"}}, "expected a finite number"),
    ],
)
def test_json_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.from_dict({**settings.to_dict(recipes.get("digits")), **change}, RunConfig)


def test_missing_json_keys_take_defaults_or_are_named() -> None:
    given = {"recipe": "a", "task": {"type": "classify"}, "network": {"type": "mlp"}, "data": {"type": "digits"}}
    made = RunConfig(recipe="a", task=Classify(), network=MlpNetwork(), data=DigitsData())
    assert settings.from_dict(given, RunConfig) == made
    with pytest.raises(ConfigError, match="recipe"):
        settings.from_dict({"task": {"type": "classify"}}, RunConfig)


def test_every_setting_is_explained_on_the_line_under_it() -> None:
    kinds = [RunConfig, FeedbackSettings, MemorySettings]
    for slot in (AbstractTask, AbstractNetwork, AbstractData, OptimizerSettings):
        kinds += settings.kinds_of(slot).values()
    assert len(kinds) > 20
    for kind in kinds:
        told = meanings(kind)
        for field in dataclasses.fields(kind):
            assert told.get(field.name), f"{kind.__name__}.{field.name} has no explanation"
