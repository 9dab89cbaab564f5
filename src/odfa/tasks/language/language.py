"""The next token by a causal Transformer.

Shape letters: `N` sequences · `T` tokens in context · `V` vocabulary.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa import data
from odfa.data import MASKED, TokenSplit
from odfa.train.config import AnyData, TextConfig
from odfa.train.tasks.base import AbstractTask, Metric, evaluating, limited

_EVALUATION_TOKENS = 4096


class Language(AbstractTask):
    """Cross-entropy per token, compared by perplexity; bits per byte besides."""

    metric = Metric(name="perplexity", better="lower")

    def load(self, config: AnyData) -> data.TextSplits:
        """Packed sequences of the corpus."""
        assert isinstance(config, TextConfig)
        splits = data.load_text(**_source(config)).limited(config.limit)
        return replace(splits, validation=splits.validation.head(config.validation), test=splits.test.head(config.test))

    def peek(self, config: AnyData) -> data.DataShape:
        """Sizes; the corpus is encoded unless that has been done before."""
        assert isinstance(config, TextConfig)
        shape = limited(data.peek_text(**_source(config)), config.limit)
        return replace(
            shape,
            num_validation=min(shape.num_validation, config.validation),
            num_test=min(shape.num_test, config.test or shape.num_test),
        )

    def loss(self, model: nn.Module, batch: data.Split) -> Tensor:
        """Mean cross-entropy over the tokens that are not masked, a scalar."""
        logits_NTV = model(input_ids=batch.x_ND, use_cache=False).logits
        return cross_entropy(logits_NTV.flatten(0, 1).float(), batch.y_N.flatten(), ignore_index=MASKED)

    def evaluate(self, model: nn.Module, part: data.Split) -> dict[str, float]:
        """Loss in nats per token, perplexity = exp(loss), and bits per byte of text."""
        assert isinstance(part, TokenSplit)
        size, nats = max(1, _EVALUATION_TOKENS // part.x_ND.shape[1]), 0.0
        with evaluating(model):
            for x_NT, y_NT in zip(torch.split(part.x_ND, size), torch.split(part.y_N, size), strict=True):
                logits_NTV = model(input_ids=x_NT, use_cache=False).logits
                nats += cross_entropy(
                    logits_NTV.flatten(0, 1).float(), y_NT.flatten(), ignore_index=MASKED, reduction="sum"
                ).item()
        targets_L = part.y_N[part.y_N != MASKED]
        loss, num_bytes = nats / len(targets_L), int(part.bytes_V[targets_L].sum())
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "bits_per_byte": nats / math.log(2) / num_bytes}


def _source(config: TextConfig) -> dict[str, Any]:
    return {
        "path": config.path,
        "context": config.context,
        "vocabulary": config.vocabulary,
        "holdout": config.holdout,
    }
