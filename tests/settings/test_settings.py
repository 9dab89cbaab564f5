"""Trees of settings: objects, key=value and JSON reach the same fields."""

from dataclasses import dataclass, field, replace

import pytest

from odfa.errors import ConfigError
from odfa.settings import FIXED, INLINE, Settings, apply, digest, from_dict, keys, require, to_dict


@dataclass(frozen=True, kw_only=True)
class Coat(Settings, room="tests.settings.wardrobe", group="odfa.test.coats"):
    """A slot."""


@dataclass(frozen=True, kw_only=True)
class Sleeves(Settings):
    """A part that is always there."""

    length_cm: float = 60.0
    """Length."""

    def __post_init__(self) -> None:
        require(self.length_cm > 0, "length_cm", "a positive length", self.length_cm)


@dataclass(frozen=True, kw_only=True)
class Person(Settings):
    """The root."""

    name: str = field(default="Ada", metadata=FIXED)
    """Not to be changed."""
    age: int | None = None
    """Years."""
    sizes: tuple[int, ...] = (1, 2)
    """Numbers."""
    coat: Coat | None = None
    """A part of a slot."""
    sleeves: Sleeves = field(default_factory=Sleeves)
    """A record."""


def test_values_kinds_and_json_are_one_tree() -> None:
    from tests.settings.wardrobe import Rain, Wool

    worn = apply(Person(), ["coat.buttons=7", "length_cm=50", "coat=wool", "age=3", "sizes=4,5,6"])
    assert worn == Person(age=3, sizes=(4, 5, 6), coat=Wool(buttons=7), sleeves=Sleeves(length_cm=50.0))
    assert from_dict(to_dict(worn), Person) == worn
    assert digest(worn) == digest(from_dict(to_dict(worn), Person)) != digest(Person())
    assert to_dict(worn)["coat"]["type"] == "wool"
    changed = apply(worn, ["coat=rain"])
    assert changed.coat == Rain(buttons=7, hood=True)  # both inherit the buttons from one declaration
    assert apply(worn, ["coat=party"]).coat == Wool(buttons=1, moths=0)
    assert apply(changed, ["coat=none"]) == replace(worn, coat=None)
    assert list(keys(changed))[3:6] == ["coat", "coat.buttons", "coat.hood"]


def test_a_class_of_another_module_is_named_by_where_it_is() -> None:
    worn = apply(Person(), ["coat=tests.settings.outside:Fur", "coat.animal=fox"])
    assert to_dict(worn)["coat"] == {"type": "tests.settings.outside:Fur", "animal": "fox"}
    assert from_dict(to_dict(worn), Person) == worn
    made = apply(Person(), ["coat=tests.settings.outside:white_fur"])
    assert to_dict(made)["coat"] == {"type": "tests.settings.outside:Fur", "animal": "bear"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["name=Eve"], "name is settled"),
        (["age=old"], "age: expected an integer"),
        (["hood=true"], "these have it: coat=rain"),
        (["coat=silk"], "coat: expected"),
        (["coat=wool", "coat.hood=true"], "coat=rain"),
        (["coat=wool", "coat.moths=-1"], "coat.moths: expected none or more, got -1"),
        (["coat=tests.settings.outside:nothing"], "cannot be imported"),
        (["coat=tests.settings.outside:a_number"], "expected settings of the kind Coat"),
        (["sleeves.length_cm=-3"], "sleeves.length_cm: expected a positive length, got -3"),
        (["sleeves=none"], "sleeves: expected default"),
        (["agee=3"], "did you mean age"),
        (["sizes"], "expected key=value"),
    ],
)
def test_what_nobody_hears_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        apply(Person(), words)
    assert told in str(refused.value), refused.value


@pytest.mark.parametrize(
    "values",
    [
        {"coat": {"type": "os:system"}},
        {"coat": {"type": "tests.settings.outside:white_fur"}},
        {"coat": {"buttons": 3}},
        {"coat": {"type": "wool", "hood": True}},
        {"coat": 3},
        {"sleeves": {"length_cm": "long"}},
        {"age": True},
        [],
    ],
)
def test_json_that_is_no_such_tree_is_refused(values: object) -> None:
    with pytest.raises(ConfigError):
        from_dict(values, Person)


@dataclass(frozen=True, kw_only=True)
class Walk(Settings):
    """Settings beside those of a person."""

    steps: int = 10
    """Number."""
    person: Person = field(default_factory=Person, metadata=INLINE)
    """Who walks."""


@dataclass(frozen=True, kw_only=True)
class Alike(Walk):
    """One name twice."""

    age: int = 1
    """Years."""


def test_an_inline_part_keeps_its_keys() -> None:
    from tests.settings.wardrobe import Wool

    assert list(keys(Walk())) == ["steps", *keys(Person())]
    words = ["steps=3", "coat=wool", "buttons=7", "length_cm=50", "age=3"]
    walk = apply(Walk(), words)
    assert walk == Walk(steps=3, person=apply(Person(), words[1:]))
    assert walk.person.coat == Wool(buttons=7)
    assert from_dict(to_dict(walk), Walk) == walk
    for words, complaint in (
        (["length_cm=-1"], r"^sleeves\.length_cm: expected a positive length"),
        (["name=Bob"], "^name is settled"),
        (["stepz=1"], "did you mean steps"),
        (["ages=1"], "did you mean age"),
        (["person=default"], "unknown setting 'person'"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            apply(Walk(), words)


def test_a_name_that_an_inline_part_has_too_is_refused() -> None:
    with pytest.raises(ConfigError, match="age: Alike and a part of it both have this key"):
        keys(Alike())
