"""Prediction of the next token by a causal Transformer.

Shape letters: `N` sequences · `T` tokens in context · `V` vocabulary.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa.data import Split
from odfa.tasks.base import AbstractTask, LossModel, Metric, device_of, evaluating
from odfa.tasks.language.text import MASKED, TokenSplit

_EVALUATION_TOKENS = 4096
"""Tokens that pass through the network at once in evaluation: their logits are as wide as the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Language(AbstractTask, kind="language"):
    """Cross-entropy per token; runs are compared by perplexity, and bits per byte are reported, too."""

    takes: ClassVar[frozenset[str]] = frozenset({"tokens"})
    asks: ClassVar[str] = "tokens"
    labelled: ClassVar[bool] = True
    by_rows: ClassVar[bool] = True
    samples: ClassVar[str] = "text"

    @property
    def metric(self) -> Metric:
        """Exponential of the mean cross-entropy per token."""
        return Metric(name="perplexity", better="lower")

    def loss(self, model: nn.Module, batch: Split) -> Tensor:
        """Mean cross-entropy over the tokens that are not masked, a scalar."""
        return _cross_entropy(model, batch.x_ND, batch.y_N, "mean")

    def targets(self, batch: Split) -> Tensor:
        """The next tokens (B, T); `MASKED` at places that the loss ignores."""
        return batch.y_N

    def evaluate(self, model: nn.Module, part: Split) -> dict[str, float]:
        """Loss in nats per token, perplexity = exp(loss), and bits per byte of text."""
        # sums over the part, divided at the end: batches have different numbers of tokens that are not masked
        assert isinstance(part, TokenSplit)
        size, nats = max(1, _EVALUATION_TOKENS // part.x_ND.shape[1]), 0.0
        device = device_of(model)
        with evaluating(model):
            for x_NT, y_NT in zip(torch.split(part.x_ND, size), torch.split(part.y_N, size), strict=True):
                nats += _cross_entropy(model, x_NT.to(device), y_NT.to(device), "sum").item()
        targets_L = part.y_N[part.y_N != MASKED]
        loss, num_bytes = nats / len(targets_L), int(part.bytes_V[targets_L].sum())
        # exp overflows above 709
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "bits_per_byte": nats / math.log(2) / num_bytes}


def _cross_entropy(model: nn.Module, x_NT: Tensor, y_NT: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    if isinstance(model, LossModel):
        loss: Tensor = model(y_NT, reduction=reduction, input_ids=x_NT, use_cache=False)
        return loss
    logits_NTV = model(input_ids=x_NT, use_cache=False).logits
    return cross_entropy(logits_NTV.flatten(0, 1).float(), y_NT.flatten(), ignore_index=MASKED, reduction=reduction)
