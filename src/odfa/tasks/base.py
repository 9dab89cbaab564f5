"""The contract of a task: its data, its network, its loss and the figure that runs are compared by."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from odfa import data
from odfa.train.config import AnyData

_EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The figure that runs are compared by."""

    name: str
    better: str


class AbstractTask(ABC):
    """`load` gives the data, `peek` their sizes; `loss` and `evaluate` say what a network makes of them."""

    metric: Metric

    @abstractmethod
    def load(self, config: AnyData) -> data.Splits:
        """The three parts.

        Raises:
            DataError: data are missing or corrupt.
        """

    @abstractmethod
    def peek(self, config: AnyData) -> data.DataShape:
        """Sizes of the three parts.

        Raises:
            DataError: data are missing or corrupt.
        """

    def augment(self, batch: data.Split, config: AnyData, shape: data.DataShape) -> data.Split:
        """The batch as a step sees it, drawn from torch's current random state."""
        return batch

    def references(self, config: AnyData) -> dict[str, float]:
        """The metric of predictions that need no network, on the test part.

        Raises:
            DataError: data are missing or corrupt.
        """
        return {}

    @abstractmethod
    def loss(self, model: nn.Module, batch: data.Split) -> Tensor:
        """Mean loss of a batch, a scalar."""

    @abstractmethod
    def evaluate(self, model: nn.Module, part: data.Split) -> dict[str, float]:
        """Loss and metric over a part; the model's training mode is left as found."""


def predictions(model: nn.Module, x_ND: Tensor) -> Tensor:
    """Outputs for many samples, some at a time."""
    return torch.cat([model(x_nD) for x_nD in torch.split(x_ND, _EVALUATION_BATCH)])


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
    return replace(
        shape,
        num_train=min(most, shape.num_train),
        num_validation=min(most, shape.num_validation),
        num_test=min(most, shape.num_test),
    )
