"""One pattern of the entries that exceed a level; for random features, not for errors."""

from torch import Tensor

from odfa.encode.base import AbstractEncoder, check_rows
from odfa.errors import ConfigError
from odfa.flow import Frames


class Threshold(AbstractEncoder):
    """b = 1[x > level]: one pattern per row, gain 1. Not signed, so it cannot carry an error.

    >>> Threshold(0.5).encode(torch.tensor([[0.2, 0.5, 0.9]])).values()
    tensor([[0., 0., 1.]])
    """

    signed = False

    def __init__(self, level: float = 0.0) -> None:
        """Set the level, in the units of the data.

        Raises:
            ConfigError: not a finite number.
        """
        if isinstance(level, bool) or not isinstance(level, int | float) or not abs(level) < float("inf"):
            raise ConfigError(f"level must be a finite number, got {level!r}")
        self._level = level
        self.name = f"threshold({level:g})"

    def __repr__(self) -> str:
        return self.name

    @property
    def patterns_per_sample(self) -> int:
        """One pattern: there are no minus patterns."""
        return 1

    def encode(self, e_ND: Tensor) -> Frames:
        """The pattern of the entries that exceed the level.

        Raises:
            ConfigError: `e_ND` is not a matrix of floating-point numbers with at least one column.
        """
        e_ND = check_rows(e_ND)
        return Frames(bits_NFD=(e_ND > self._level)[:, None], gain_NF=e_ND.new_ones((len(e_ND), 1)), encoder=self.name)
