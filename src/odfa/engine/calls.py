"""What is known of a block that ran in a forward pass."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from odfa.errors import ConfigError, MatchError
from odfa.feedback import Axes


@dataclass(frozen=True)
class Kept:
    """A tensor without its history, and how often it had been changed in place when it was kept."""

    tensor: Tensor
    version: int


@dataclass(frozen=True)
class Call:
    """One call of one block in one forward pass.

    `deferred` calls ran without a graph, inside reentrant activation checkpointing or in the first run of
    `recompute="stream"`; their signal enters when the block runs again. `axes` is where data flow showed the batch, if
    the rule's feedback asked for it.
    """

    block: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    deferred: bool
    axes: Axes | None = None
    kept_input: Kept | None = field(default=None, repr=False, compare=False)
    kept_output: Kept | None = field(default=None, repr=False, compare=False)

    @property
    def input(self) -> Tensor:
        """What the block received, without history: its first floating-point tensor, or its first one if none is.

        Raises:
            ConfigError: the rule does not declare that it needs block inputs.
            MatchError: the block changed it in place.
        """
        return self._unchanged(self.kept_input, "input")

    @property
    def output(self) -> Tensor:
        """What the block returned, without history: the tensor of `shape`.

        Raises:
            ConfigError: the rule does not declare that it needs block outputs.
            MatchError: what came behind the block changed it in place.
        """
        return self._unchanged(self.kept_output, "output")

    def _unchanged(self, kept: Kept | None, what: str) -> Tensor:
        if kept is None:
            raise ConfigError(
                f"the {what} of block {self.block} was not kept; write needs = frozenset({{'block {what}'}}) in the "
                "rule's class"
            )
        if kept.tensor._version != kept.version:
            raise MatchError(
                f"the {what} of block {self.block} was changed in place before the rule could read it; expected it as "
                "it was, so leave out inplace=True and operations such as x += y there"
            )
        return kept.tensor
