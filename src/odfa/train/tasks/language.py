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
from odfa.train.config import DataConfig, RunConfig, TextConfig, TransformerConfig
from odfa.train.tasks.base import AbstractTask, Metric, evaluating, limited

_EVALUATION_TOKENS = 4096


class Language(AbstractTask):
    """Cross-entropy per token, compared by perplexity; bits per byte besides."""

    metric = Metric(name="perplexity", better="lower")

    def load(self, config: DataConfig | TextConfig) -> data.TextSplits:
        """Packed sequences of the corpus."""
        assert isinstance(config, TextConfig)
        splits = data.load_text(**_source(config)).limited(config.limit)
        return replace(splits, validation=splits.validation.head(config.validation), test=splits.test.head(config.test))

    def peek(self, config: DataConfig | TextConfig) -> data.DataShape:
        """Sizes; the corpus is encoded unless that has been done before."""
        assert isinstance(config, TextConfig)
        shape = limited(data.peek_text(**_source(config)), config.limit)
        return replace(
            shape,
            num_validation=min(shape.num_validation, config.validation),
            num_test=min(shape.num_test, config.test or shape.num_test),
        )

    def build_model(self, config: RunConfig, shape: data.DataShape) -> nn.Module:
        """The network, on the current default device, drawn from torch's current random state."""
        assert isinstance(config.model, TransformerConfig)
        return build_transformer(config.model, context=shape.num_features, vocabulary=shape.num_classes)

    def example(self, batch_size: int, shape: data.DataShape) -> Tensor:
        """Token numbers (N, T)."""
        return torch.zeros(batch_size, shape.num_features, dtype=torch.long)

    def rows(self, batch_size: int, shape: data.DataShape) -> int:
        """One per token."""
        return batch_size * shape.num_features

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


def build_transformer(config: TransformerConfig, *, context: int, vocabulary: int) -> nn.Module:
    """An unmodified `transformers` model with random weights, on the current default device.

    Raises:
        MissingExtra: transformers is not installed.
    """
    with data.needs("transformers", "language models"), data.quietly():
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    inner = config.mlp_width or 4 * config.width
    special: dict[str, Any] = {
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": None,
        "tie_word_embeddings": config.tied,
    }
    settings: Any
    if config.family == "gpt2":
        settings = GPT2Config(
            vocab_size=vocabulary,
            n_positions=context,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            n_inner=inner,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **special,
        )
        return _with_readout(GPT2LMHeadModel(settings), config)
    settings = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=context,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads or config.heads,
        intermediate_size=inner,
        **special,
    )
    return _with_readout(LlamaForCausalLM(settings), config)


def _with_readout(model: Any, config: TransformerConfig) -> nn.Module:
    """`model` with its read-out drawn at the size that was asked for."""
    if config.readout_scale is not None:
        nn.init.normal_(model.get_output_embeddings().weight, std=config.readout_scale / config.width**0.5)
    network: nn.Module = model
    return network


def _source(config: TextConfig) -> dict[str, Any]:
    return {
        "path": config.path,
        "context": config.context,
        "vocabulary": config.vocabulary,
        "holdout": config.holdout,
    }
