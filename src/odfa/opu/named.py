"""OPUs of other packages that have no settings: a name is all that a run knows of them."""

from dataclasses import dataclass
from inspect import isclass
from typing import Any

from odfa import arguments
from odfa.opu.base import AbstractOpu
from odfa.opu.registry import behind, open_opu
from odfa.opu.settings import OpuSettings
from odfa.settings import Settings


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
        return open_opu(self.name)

    @classmethod
    def adopted(cls, word: str, found: Any) -> Settings | None:
        """These settings for a class or a function that returns an OPU and has no settings."""
        made = found if isclass(found) else getattr(found, "__annotations__", {}).get("return")
        settings = isinstance(found, Settings) or (isclass(made) and issubclass(made, Settings))
        return NamedOpu(name=word) if callable(found) and not settings else None


def opu_settings(name: str) -> OpuSettings:
    """The settings behind a name that `odfa opu list` shows, or `package.module:Name`.

    Raises:
        ConfigError: no OPU of this name.
    """
    found = behind(arguments.named("opu", name))
    return found if isinstance(found, OpuSettings) else NamedOpu(name=name)
