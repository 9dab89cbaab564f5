"""The class that all settings derive from, and what they check their values with."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from odfa.errors import ConfigError

MAX_WIDTH = 2**20
MAX_LAYERS = 10_000
MAX_COUNT = 10**9
"""Largest number of steps, epochs or samples: more than any run has time for."""
SEEDS, SEEDS_TOLD = range(2**63), "a number in [0, 2^63)"
FIXED: Mapping[str, bool] = {"fixed": True}
"""Metadata of a field that `key=value` may not change."""
INLINE: Mapping[str, bool] = {"inline": True}
"""Metadata of a field of settings whose keys stand beside those of their owner, without the field's name."""
_SHOWN = 120


class SettingError(ConfigError):
    """A setting whose value is refused; `key` is its dotted path as far as it is known."""

    def __init__(self, key: str, complaint: str) -> None:
        super().__init__(f"{key}: {complaint}" if key else complaint)
        self.key, self.complaint = key, complaint

    def under(self, name: str) -> "SettingError":
        """The same error with `name` in front of its key, as the settings one level up know it."""
        return SettingError(f"{name}.{self.key}" if self.key else name, self.complaint)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of every settings class; the class itself is made with keywords.

    `class EncoderSettings(Settings, room="odfa.encode", group="odfa.encoders")` is a *slot*: a field of this type takes
    any kind that a module of `room` defines, or a package registers under the entry points `group`.
    `class SampledSettings(EncoderSettings, kind="sampled")` is a *kind*: `encoder=sampled` on a command line, and
    `{"type": "sampled", ...}` in JSON.
    """

    kind: ClassVar[str] = ""
    """The word for this class; empty: it is no kind of a slot."""
    room: ClassVar[str] = ""
    """Slots: the package whose modules define the kinds."""
    registered: ClassVar[str] = ""
    """Slots: the group of entry points where other packages register theirs."""
    presets: ClassVar[Mapping[str, Callable[[], "Settings"]]] = {}
    """Kinds: further words, each for an instance with certain values."""

    def __init_subclass__(cls, *, kind: str = "", room: str = "", group: str = "", **rest: object) -> None:
        """Keep the class keywords `kind`, `room` and `group` as attributes."""
        super().__init_subclass__(**rest)
        cls.kind = kind
        if room:
            cls.room, cls.registered = room, group

    @classmethod
    def adopted(cls, word: str, found: object) -> "Settings | None":  # noqa: ARG003 - for kinds that look at them
        """Kinds that also take other objects than settings: the settings that stand for `found`, which `word` names;
        None where there are none."""
        return None

    def unread(self) -> Mapping[str, str]:
        """Dotted path → why, of the settings in this part that nothing reads as it stands; `apply` refuses changes."""
        return {}

    def changed(self, name: str, value: object) -> Self:
        """A copy with another value; trees whose parts depend on each other adjust the others here.

        Raises:
            SettingError: the value is refused.
        """
        return dataclasses.replace(self, **{name: value})


def require(condition: bool, key: str, expected: str, got: object) -> None:
    """Refuse a setting whose condition is false.

    Raises:
        SettingError: `condition` is false.
    """
    if not condition:
        raise SettingError(key, f"expected {expected}, got {shown(got)}")


def require_counts(record: object, *names: str, what: str = "a positive number") -> None:
    """Refuse settings that are neither none nor a count from 1 to `MAX_COUNT`.

    Raises:
        SettingError: for the first that is refused.
    """
    for name in names:
        value = getattr(record, name)
        most = "" if value is None or value <= MAX_COUNT else f" up to {MAX_COUNT:,}"
        require(value is None or 0 < value <= MAX_COUNT, name, what + most, value)


def shown(value: object) -> str:
    """A value as it was written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
