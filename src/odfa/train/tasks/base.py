"""The contract of a task: its data, its network, its loss and the figure that runs are compared by."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odfa import data
from odfa.train.config import DataConfig, RunConfig, TextConfig


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The figure that runs are compared by."""

    name: str
    better: str


class AbstractTask(ABC):
    """`load` gives the data, `peek` their sizes; one error row leaves the model per sample or per token."""

    metric: Metric

    @abstractmethod
    def load(self, config: DataConfig | TextConfig) -> data.Splits:
        """The three parts.

        Raises:
            DataError: data are missing or corrupt.
        """

    @abstractmethod
    def peek(self, config: DataConfig | TextConfig) -> data.DataShape:
        """Sizes of the three parts.

        Raises:
            DataError: data are missing or corrupt.
        """

    @abstractmethod
    def build_model(self, config: RunConfig, shape: data.DataShape) -> nn.Module:
        """The network, on the current default device, drawn from torch's current random state."""

    @abstractmethod
    def example(self, batch_size: int, shape: data.DataShape) -> Tensor:
        """An input of the right form, on the current default device, values of no meaning."""

    @abstractmethod
    def rows(self, batch_size: int, shape: data.DataShape) -> int:
        """Error rows that a batch gives."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: data.Split) -> Tensor:
        """Mean loss of a batch, a scalar."""

    @abstractmethod
    def evaluate(self, model: nn.Module, part: data.Split) -> dict[str, float]:
        """Loss and metric over a part; the model's training mode is left as found."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside, the mode as found outside."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def limited(shape: data.DataShape, limit: int | None) -> data.DataShape:
    """Sizes after `Splits.limited`."""
    most = limit if limit is not None else max(shape.num_train, shape.num_validation, shape.num_test)
    return data.DataShape(
        num_features=shape.num_features,
        num_classes=shape.num_classes,
        num_train=min(most, shape.num_train),
        num_validation=min(most, shape.num_validation),
        num_test=min(most, shape.num_test),
    )
