"""Which OPU a run uses: the slot of the twin and of every OPU that another package registers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from odfa.flow import Arm
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

    def unread_by(self, arm: Arm) -> Mapping[str, str]:
        """Dotted path → why, of the settings that nothing reads when the reference arm does this."""
        return {}
