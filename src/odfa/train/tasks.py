"""What a run learns: a table of tasks, each with its data, loss and metric. A new task is one more row."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa import data
from odfa.errors import ConfigError
from odfa.train.config import DataConfig, RunConfig
from odfa.train.mlp import Mlp

_EVALUATION_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The figure that runs are compared by."""

    name: str
    better: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """`load` gives the data, `peek` their sizes without loading; the loss is the mean cross-entropy."""

    load: Callable[[DataConfig], data.Splits]
    peek: Callable[[DataConfig], data.DataShape]
    metric: Metric

    def build_model(self, config: RunConfig, shape: data.DataShape) -> nn.Module:
        """The network, on the current default device, drawn from torch's current random state."""
        return Mlp(config.model, num_features=shape.num_features, num_classes=shape.num_classes)

    def loss(self, model: nn.Module, batch: data.Split) -> Tensor:
        """Mean cross-entropy of a batch, a scalar."""
        return cross_entropy(model(batch.x_ND), batch.y_N)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: data.Split) -> dict[str, float]:
        """Loss and accuracy over a part; the model's training mode is left as found."""
        was_training = model.training
        model.eval()
        loss, correct = 0.0, 0
        for x_ND, y_N in zip(*(torch.split(whole, _EVALUATION_BATCH) for whole in (part.x_ND, part.y_N)), strict=True):
            logits_NC = model(x_ND)
            loss += cross_entropy(logits_NC, y_N, reduction="sum").item()
            correct += int((logits_NC.argmax(dim=1) == y_N).sum())
        model.train(was_training)
        return {"loss": loss / len(part), "accuracy": correct / len(part)}


def _load_digits(config: DataConfig) -> data.Splits:
    _refuse_path(config)
    return data.load_digits(validation=config.validation).limited(config.limit).standardised()


def _peek_digits(config: DataConfig) -> data.DataShape:
    _refuse_path(config)
    return _limited(data.peek_digits(validation=config.validation), config.limit)


def _load_fashion(config: DataConfig) -> data.Splits:
    return data.load_fashion(config.path, validation=config.validation).limited(config.limit).standardised()


def _peek_fashion(config: DataConfig) -> data.DataShape:
    return _limited(data.peek_fashion(config.path, validation=config.validation), config.limit)


def _refuse_path(config: DataConfig) -> None:
    if config.path is not None:
        raise ConfigError("data.path: digits come with scikit-learn; use a fashion recipe for idx folders")


def _limited(shape: data.DataShape, limit: int | None) -> data.DataShape:
    most = limit if limit is not None else max(shape.num_train, shape.num_validation, shape.num_test)
    return data.DataShape(
        num_features=shape.num_features,
        num_classes=shape.num_classes,
        num_train=min(most, shape.num_train),
        num_validation=min(most, shape.num_validation),
        num_test=min(most, shape.num_test),
    )


_ACCURACY = Metric(name="accuracy", better="higher")
TASKS = {
    "digits": Task(load=_load_digits, peek=_peek_digits, metric=_ACCURACY),
    "fashion": Task(load=_load_fashion, peek=_peek_fashion, metric=_ACCURACY),
}


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=3) or list(TASKS)
        raise ConfigError(f"unknown task {name!r}; did you mean {' or '.join(near)}?")
    return TASKS[name]
