"""Causal language models of the transformers library."""

from typing import Any

import torch
from torch import Tensor, nn

from odfa import data
from odfa.train.config import TransformerConfig
from odfa.train.networks.base import AbstractNetwork


class TransformerNetwork(AbstractNetwork[TransformerConfig]):
    """One error row per token, as wide as the vocabulary."""

    @property
    def num_outputs(self) -> int:
        """Entries of the vocabulary."""
        return self.shape.num_classes

    @property
    def num_rows(self) -> int:
        """Tokens in the context."""
        return self.shape.num_features

    def build(self) -> nn.Module:
        """GPT-2 or Llama."""
        return build_transformer(self.config, context=self.shape.num_features, vocabulary=self.shape.num_classes)

    def example(self, batch_size: int) -> tuple[Tensor, ...]:
        """Token numbers (N, T)."""
        return (torch.zeros(batch_size, self.shape.num_features, dtype=torch.long),)


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
