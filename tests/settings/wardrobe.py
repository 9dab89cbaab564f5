"""The kinds of a slot."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from odfa.settings import Settings, require
from tests.settings.test_settings import Coat


@dataclass(frozen=True, kw_only=True)
class Buttoned(Coat):
    """What several kinds share."""

    buttons: int = 1
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Wool(Buttoned, kind="wool"):
    """Warm."""

    moths: int = 3
    """How many."""
    presets: ClassVar[Mapping[str, Callable[[], Settings]]] = {"party": lambda: Wool(moths=0)}

    def __post_init__(self) -> None:
        require(self.moths >= 0, "moths", "none or more", self.moths)


@dataclass(frozen=True, kw_only=True)
class Rain(Buttoned, kind="rain"):
    """Dry."""

    hood: bool = True
    """Whether there is one."""
