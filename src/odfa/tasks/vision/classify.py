"""Images to classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa import data
from odfa.errors import ConfigError
from odfa.train.config import AnyData, DataConfig
from odfa.train.tasks.base import AbstractTask, Metric, evaluating, limited

_EVALUATION_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Classify(AbstractTask):
    """Cross-entropy over classes, compared by accuracy; inputs are standardised."""

    read: Callable[[DataConfig], data.Splits]
    read_shape: Callable[[DataConfig], data.DataShape]
    metric = Metric(name="accuracy", better="higher")

    def load(self, config: AnyData) -> data.Splits:
        """The three parts, standardised."""
        assert isinstance(config, DataConfig)
        return self.read(config).limited(config.limit).fingerprinted().standardised()

    def peek(self, config: AnyData) -> data.DataShape:
        """Sizes, without loading."""
        assert isinstance(config, DataConfig)
        return limited(self.read_shape(config), config.limit)

    def augment(self, batch: data.Split, config: AnyData, shape: data.DataShape) -> data.Split:
        """Images shifted and mirrored as the settings say."""
        assert isinstance(config, DataConfig)
        assert shape.image is not None
        return data.augment(batch, shape.image, shift=config.shift, flip=config.flip)

    def loss(self, model: nn.Module, batch: data.Split) -> Tensor:
        """Mean cross-entropy of a batch, a scalar."""
        return cross_entropy(model(batch.x_ND), batch.y_N)

    def evaluate(self, model: nn.Module, part: data.Split) -> dict[str, float]:
        """Loss and accuracy over a part."""
        loss, correct = 0.0, 0
        with evaluating(model):
            for x_ND, y_N in zip(
                *(torch.split(whole, _EVALUATION_BATCH) for whole in (part.x_ND, part.y_N)), strict=True
            ):
                logits_NC = model(x_ND).float()  # sums over a part need more digits than bfloat16 has
                loss += cross_entropy(logits_NC, y_N, reduction="sum").item()
                correct += int((logits_NC.argmax(dim=1) == y_N).sum())
        return {"loss": loss / len(part), "accuracy": correct / len(part)}


def _load_digits(config: DataConfig) -> data.Splits:
    _refuse_path(config)
    return data.load_digits(validation=config.validation)


def _peek_digits(config: DataConfig) -> data.DataShape:
    _refuse_path(config)
    return data.peek_digits(validation=config.validation)


def _refuse_path(config: DataConfig) -> None:
    if config.path is not None:
        raise ConfigError("data.path: digits come with scikit-learn; use a fashion recipe for idx folders")


DIGITS = Classify(read=_load_digits, read_shape=_peek_digits)
FASHION = Classify(
    read=lambda config: data.load_fashion(config.path, validation=config.validation),
    read_shape=lambda config: data.peek_fashion(config.path, validation=config.validation),
)
