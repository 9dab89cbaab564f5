"""Settings made in Python: their values are compared with the types of the fields, as JSON and words are."""

import importlib
import json
import pkgutil
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import odfa
from odfa import recipes
from odfa.engine import RandomFeedback
from odfa.errors import ConfigError
from odfa.session import AdamSettings, MemorySettings
from odfa.settings import SettingError, Settings, apply, from_dict, require, to_dict
from odfa.settings.fields import hints_of


def _below(kind: type[Settings]) -> Iterator[type[Settings]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _below(sub)


def _classes() -> list[type[Settings]]:
    """Every settings class of this package that can be made without a value for a field."""
    for info in pkgutil.walk_packages(odfa.__path__, "odfa."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    ours = [kind for kind in dict.fromkeys(_below(Settings)) if kind.__module__.startswith("odfa.")]
    return [kind for kind in ours if not getattr(kind, "__abstractmethods__", ()) and _makeable(kind)]


def _makeable(kind: type[Settings]) -> bool:
    try:
        kind()
    except TypeError:
        return False
    except ConfigError:
        return False
    return True


CLASSES = _classes()
PLACES = [(kind, field.name) for kind in CLASSES for field in fields(kind)]
_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([2**62, 2**63, 2**70, 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 2),
    st.sampled_from(["", " ", "0", "no", "true", "1e-3", "cos", "cosine", "mean", "x", "\0"]),
    st.lists(st.integers(0, 40) | st.floats(0, 1) | st.sampled_from(["a", "0"]) | st.booleans(), max_size=3),
    st.just({}),
)


def _json(value: object) -> object:
    return json.loads(json.dumps(value))


def _refusal(make: Any) -> str | None:
    try:
        make()
    except ConfigError as error:
        return str(error)
    return None


def test_the_classes_are_all_there() -> None:
    assert len(CLASSES) > 50
    assert len(PLACES) > 250


@given(st.sampled_from(PLACES), _values, st.booleans())
@settings(max_examples=1500, deadline=None)
def test_python_refuses_what_json_refuses(place: tuple[type[Settings], str], value: Any, as_tuple: bool) -> None:
    kind, name = place
    if _settings_in(hints_of(kind)[name]):
        return  # objects in Python, objects of JSON there: see below
    given = tuple(value) if as_tuple and isinstance(value, list) else value
    plain = to_dict(kind()) | ({"type": f"{kind.__module__}:{kind.__qualname__}"} if kind.room else {})
    by_json = _refusal(lambda: from_dict({**plain, name: _json(value)}, kind))
    by_python = _refusal(lambda: replace(kind(), **{name: given}))
    assert (by_json is None) == (by_python is None), (by_json, by_python)
    if by_json is None:
        made, read = replace(kind(), **{name: given}), from_dict({**plain, name: _json(value)}, kind)
        assert repr(made) == repr(read)


@given(st.sampled_from(PLACES), st.sampled_from(["no", "1.5", "x", "nan", "inf", "1e400", "true", str(2**63)]))
@settings(max_examples=600, deadline=None)
def test_python_refuses_what_a_word_is_refused_for(place: tuple[type[Settings], str], text: str) -> None:
    """A number, a truth or a text that does not spell the field's type, as the object that it spells."""
    kind, name = place
    field = next(field for field in fields(kind) if field.name == name)
    if (
        _settings_in(hints_of(kind)[name])
        or "fixed" in field.metadata
        or get_origin(_bare(hints_of(kind)[name])) is tuple
    ):
        return
    if _bare(hints_of(kind)[name]) in (str, Path) or get_origin(_bare(hints_of(kind)[name])) is Literal:
        value: object = text
    else:
        value = {"no": "no", "x": "x", "true": True}.get(text) or (int(text) if text.isdigit() else float(text))
    by_word = _refusal(lambda: apply(kind(), [f"{name}={text}"], heard=False))
    by_python = _refusal(lambda: replace(kind(), **{name: value}))
    assert (by_word is None) == (by_python is None), (by_word, by_python)


@pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p[0].__name__}.{p[1]}")
def test_no_field_takes_a_component_a_class_or_a_tensor(place: tuple[type[Settings], str]) -> None:
    kind, name = place
    before = kind()
    for value in (object(), int, kind, torch.ones(2), {"type": "x"}, lambda: 3):
        with pytest.raises(SettingError, match=rf"^{name}: expected .*, got ") as refused:
            replace(before, **{name: value})
        assert "\n" not in str(refused.value) or isinstance(value, torch.Tensor)


def _bare(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def _settings_in(hint: Any) -> bool:
    kind = _bare(hint)
    return isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, Settings)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tensorboard": "no"}, "tensorboard: expected true or false, got 'no'"),
        ({"steps": True}, "steps: expected an integer, got True"),
        ({"rule": "random"}, "got the word 'random'; write RandomFeedback()"),
        (
            {"rule": RandomFeedback},
            "rule: expected an instance, got the class RandomFeedback; write RandomFeedback(...)",
        ),
        (
            {"rule": int},
            "(aligned, backprop, drtp, electronic, exact, forward_gradient, kolen_pollack, low_rank, random, shallow), "
            "got the class int",
        ),
        ({"projection": odfa.Gaussian()}, "projection: expected GaussianSettings, got Gaussian, which they build"),
        ({"projection": RandomFeedback()}, "(gaussian, hadamard, identity, optical, rademacher) or None, got RandomFe"),
        ({"memory": MemorySettings}, "memory: expected an instance, got the class MemorySettings"),
        ({"memory": None}, "memory: expected an instance of MemorySettings, got None"),
    ],
)
def test_a_run_says_what_it_expects(change: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingError) as refused:
        replace(recipes.get("digits_tiny"), **change)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: AdamSettings(learning_rate=0.01, schedule="cos"), "schedule: expected cosine or constant, got 'cos'"),
        (lambda: AdamSettings(learning_rate="0.1"), "learning_rate: expected a finite number, got '0.1'"),
        (lambda: AdamSettings(learning_rate=10**400), "learning_rate: expected a finite number, got 1000"),
        (lambda: RandomFeedback(shared="no"), "shared: expected true or false, got 'no'"),
        (lambda: RandomFeedback(per_sample="0"), "per_sample: expected a list of values, got '0'"),
        (lambda: RandomFeedback(scale="x"), "scale: expected a finite number, got 'x'"),
    ],
)
def test_a_part_says_what_it_expects(make: Any, told: str) -> None:
    with pytest.raises(SettingError) as refused:
        make()
    assert told in str(refused.value)


class Stretched:
    """A base that is no settings class, with a check of its own."""

    def __post_init__(self) -> None:
        require(self.length > 0, "length", "a positive length", self.length)  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class Plain(Settings):
    """No check of its own."""

    length: float = 1.0
    parts: tuple[int, ...] = ()
    file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Forgetful(Plain):
    """A check that does not call that of its base."""

    count: int = 1

    def __post_init__(self) -> None:
        require(self.count > 0, "count", "a positive number", self.count)


@dataclass(frozen=True, kw_only=True)
class Careful(Forgetful):
    """A check that does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length > 0, "length", "a positive length", self.length)


@dataclass(frozen=True, kw_only=True)
class Mixed(Stretched, Plain):
    """A check that comes from elsewhere."""


@pytest.mark.parametrize("kind", [Plain, Forgetful, Careful, Mixed])
def test_no_class_forgets_the_types(kind: type[Plain]) -> None:
    for value in ("x", float("nan"), True, None, [1.0]):
        with pytest.raises(SettingError, match=r"^length: expected a finite number, got "):
            kind(length=value)  # type: ignore[arg-type]
    assert kind(length=2.5).length == 2.5


def test_the_class_s_own_checks_come_after_the_types() -> None:
    for kind in (Forgetful, Careful):
        with pytest.raises(SettingError, match="count: expected an integer, got '2'"):
            kind(count="2")  # type: ignore[arg-type]
        with pytest.raises(SettingError, match="count: expected a positive number, got 0"):
            kind(count=0)
    for kind in (Careful, Mixed):
        with pytest.raises(SettingError, match="length: expected a positive length, got -1"):
            kind(length=-1)


def test_what_json_converts_is_converted() -> None:
    made = Plain(length=2, parts=[1, 2], file="a/b")  # type: ignore[arg-type]
    assert made == Plain(length=2.0, parts=(1, 2), file=Path("a/b"))
    assert type(made.length) is float
    assert hash(made) == hash(from_dict(to_dict(made), Plain))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8, np.uint64])
def test_a_number_of_numpy_becomes_a_number_of_python(kind: type[np.number[Any]]) -> None:
    length = Plain(length=kind(2)).length  # type: ignore[arg-type]
    assert (length, type(length)) == (2.0, float)
    if issubclass(kind, np.floating):
        for value in (kind("nan"), kind("inf")):
            with pytest.raises(SettingError, match="length: expected a finite number"):
                Plain(length=value)  # type: ignore[arg-type]


def test_a_default_of_another_type_is_refused_too() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong(Settings):
        count: int = 1.5  # type: ignore[assignment]

    with pytest.raises(SettingError, match=r"count: expected an integer, got 1\.5"):
        Wrong()
    assert Wrong(count=2).count == 2


def test_a_type_that_json_does_not_hold_is_free_in_python_and_refused_where_it_would_be_saved() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Odd(Settings):
        table: dict[str, int]

    told = r"table: a setting of the type dict\[str, int\] cannot be saved; expected"
    odd = Odd(table={"a": 1})
    assert odd.table == {"a": 1}
    with pytest.raises(SettingError, match=told):
        to_dict(odd)
    with pytest.raises(SettingError, match=told):
        from_dict({"table": {}}, Odd)
