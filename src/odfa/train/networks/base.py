"""The contract of a network: its size follows from settings and data, its weights from torch's random state."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from odfa.data import DataShape
from odfa.train.config import AnyModel

C = TypeVar("C", bound=AnyModel)


@dataclass(frozen=True)
class AbstractNetwork(ABC, Generic[C]):
    """A network before it is built: what it takes, and the error rows it gives back."""

    config: C
    shape: DataShape

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Width of an error row: outputs of the head."""

    @property
    def num_rows(self) -> int:
        """Error rows of a sample."""
        return 1

    @property
    def signal_widths(self) -> tuple[int, ...]:
        """Values of each block's output for an error row, first to last: what random feedback has to fill."""
        return self.config.widths

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, on the current default device, drawn from torch's current random state.

        Raises:
            MissingExtra: its library is not installed.
        """

    def example(self, batch_size: int) -> tuple[Tensor, ...]:
        """Inputs of the right form, on the current default device, values of no meaning."""
        return (torch.empty(batch_size, self.shape.num_features),)
