"""Classification of samples by a cross-entropy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa.data import Split, Splits
from odfa.tasks.base import AbstractTask, Metric, device_of, evaluating

_EVALUATION_BATCH = 1000
"""Samples that pass through the network at once in evaluation."""


@dataclass(frozen=True, kw_only=True)
class Classify(AbstractTask, kind="classify"):
    """Cross-entropy over classes; runs are compared by accuracy. Inputs are standardised."""

    takes: ClassVar[frozenset[str]] = frozenset({"classes"})
    asks: ClassVar[str] = "classes"
    labelled: ClassVar[bool] = True

    @property
    def metric(self) -> Metric:
        """Share of the samples whose class has the largest logit."""
        return Metric(name="accuracy", better="higher")

    def prepared(self, splits: Splits) -> Splits:
        """The parts with inputs of mean zero and variance one over the training part."""
        return splits.standardised()

    def loss(self, model: nn.Module, batch: Split) -> Tensor:
        """Mean cross-entropy of a batch, a scalar."""
        return cross_entropy(model(batch.x_ND), batch.y_N)

    def targets(self, batch: Split) -> Tensor:
        """The numbers of the classes (B,)."""
        return batch.y_N

    def evaluate(self, model: nn.Module, part: Split) -> dict[str, float]:
        """Mean loss per sample and accuracy over a part."""
        loss, correct, device = 0.0, 0, device_of(model)
        with evaluating(model):
            for x_ND, y_N in zip(
                *(torch.split(whole, _EVALUATION_BATCH) for whole in (part.x_ND, part.y_N)), strict=True
            ):
                y_N = y_N.to(device)
                logits_NC = model(x_ND.to(device)).float()  # bfloat16 has too few digits for sums over a part
                loss += cross_entropy(logits_NC, y_N, reduction="sum").item()
                correct += int((logits_NC.argmax(dim=1) == y_N).sum())
        return {"loss": loss / len(part), "accuracy": correct / len(part)}
