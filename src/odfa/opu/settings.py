"""Which OPU a run uses: the slot of the twin and of every OPU that another package registers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from inspect import isclass
from typing import Any

from odfa import arguments
from odfa.opu.base import AbstractOpu
from odfa.settings import Settings

GROUP = "odfa.opus"


@dataclass(frozen=True, kw_only=True)
class OpuSettings(Settings, ABC, room="odfa.opu", group=GROUP):
    """Which OPU, with what settings. Other packages register subclasses, or classes or functions that return one."""

    @abstractmethod
    def build(self, noise_seed: int = 0) -> AbstractOpu:
        """The OPU; it claims its hardware at the first frame. `noise_seed` is the key of the noise of a simulation.

        Raises:
            ConfigError: these settings give no OPU.
            OpuError: it cannot be made.
        """

    @classmethod
    def adopted(cls, word: str, found: Any) -> Settings | None:
        """`NamedOpu` for a class or a function that returns an OPU and has no settings."""
        made = found if isclass(found) else getattr(found, "__annotations__", {}).get("return")
        settings = isinstance(found, Settings) or (isclass(made) and issubclass(made, Settings))
        return NamedOpu(name=word) if callable(found) and not settings else None


@dataclass(frozen=True, kw_only=True)
class NamedOpu(OpuSettings, kind="named"):
    """An OPU without settings: a class or a function of another package that returns one."""

    name: str = ""
    """Name under which a package registered it (see `odfa opu list`), or `package.module:Name`."""

    def __post_init__(self) -> None:
        arguments.named("name", self.name)

    def build(self, noise_seed: int = 0) -> AbstractOpu:
        """The OPU as `odfa.open_opu(name)` makes it; an instrument makes its own noise.

        Raises:
            ConfigError: no OPU of this name, or what is registered is not an OPU.
            OpuError: the OPU cannot be made; Disconnected where its driver fails without saying more.
        """
        from odfa.opu.registry import open_opu

        return open_opu(self.name)
