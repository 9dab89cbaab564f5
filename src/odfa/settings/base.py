"""The class that all settings derive from."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, Self

from odfa.settings.fields import check

FIXED: Mapping[str, bool] = {"fixed": True}
"""Metadata of a field that `key=value` may not change."""
INLINE: Mapping[str, bool] = {"inline": True}
"""Metadata of a field of settings whose keys stand beside those of their owner, without the field's name."""
_CHECKS = "__checks_fields__"
"""Attribute of a `__post_init__` that compares the fields with their types first."""


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
        """Keep the class keywords `kind`, `room` and `group` as attributes; fields are compared with their types before
        a `__post_init__` of the class's own reads them."""
        super().__init_subclass__(**rest)
        if not hasattr(cls.__post_init__, _CHECKS):
            setattr(cls, "__post_init__", _checked_first(cls.__post_init__))  # noqa: B010 - mypy: a method is assigned
        cls.kind = kind
        if room:
            cls.room, cls.registered = room, group

    def __post_init__(self) -> None:
        """Compare every value with the type of its field; an int for a float, a list for a tuple and text for a path
        are converted, as from JSON.

        Raises:
            SettingError: a value of another type, or a number that is not finite or has more than 64 bits.
        """
        check(self, Settings)

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


def _checked_first(own: Callable[..., None]) -> Callable[..., None]:
    """`own`, a `__post_init__`, after every value has been compared with the type of its field."""

    @wraps(own)
    def checked(self: Settings, *given: Any) -> None:
        # only the outermost one compares: it may call those of its bases, or none of them
        if type(self).__post_init__ is checked:
            check(self, Settings)
        own(self, *given)

    setattr(checked, _CHECKS, True)
    return checked


setattr(Settings.__post_init__, _CHECKS, True)
