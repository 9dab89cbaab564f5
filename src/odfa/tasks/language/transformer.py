"""Causal language models of the transformers library.

Unusual in them:
- dropout is off
- the head is not tied to the embedding unless `tied` says so: rules that set the head would overwrite the embedding
- `head_scale` draws the head in proportion to 1 / sqrt(width) instead of the library's fixed 0.02
- each token is one error row, as wide as the vocabulary
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from odfa.data import DataShape, needs, quietly
from odfa.settings import require
from odfa.tasks.base import AbstractNetwork, StackNetwork


class TokenNetwork(AbstractNetwork):
    """A network that returns logits for the next token: one error row per token, as wide as the vocabulary."""

    returns: ClassVar[frozenset[str]] = frozenset({"tokens"})

    def num_outputs(self, shape: DataShape) -> int:
        """Number of entries of the vocabulary."""
        return shape.num_classes

    def num_rows(self, shape: DataShape) -> int:
        """Number of tokens in the context."""
        return shape.num_features

    def example(self, shape: DataShape, batch_size: int) -> tuple[Tensor, ...]:
        """Token numbers (N, T), all zero."""
        return (torch.zeros(batch_size, shape.num_features, dtype=torch.long),)


@dataclass(frozen=True, kw_only=True)
class CausalNetwork(TokenNetwork, StackNetwork):
    """A causal language model of the transformers library, unmodified, built from its config with random weights."""

    width: int = 256
    """Width of the residual stream."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; they share the width."""
    mlp_width: int | None = None
    """Inner width of the MLP; none: four times the width."""
    tied: bool = False
    """Whether the head has the same weights as the embedding; aligned rules need false, as they overwrite the head."""
    head_scale: float | None = None
    """Standard deviation of the untied head's initial weights times the root of the width; none: the library's 0.02.
    Aligned rules overwrite these weights."""

    of_head: ClassVar[tuple[str, ...]] = ("head_scale",)
    per_head: ClassVar[int] = 1
    """The width of each attention head must be a multiple of this."""
    stack: ClassVar[str] = ""
    """Name of the list of blocks in the library's model."""
    norm: ClassVar[str] = ""
    """Name, in a block, of the norm in front of the MLP."""
    ends: ClassVar[tuple[str, ...]] = ()
    """Names, in a block, of the linear maps at the end of attention and MLP."""

    def __post_init__(self) -> None:
        self._check_positive("width", "layers", "heads", "mlp_width")
        whole = self.per_head * self.heads
        require(self.width % whole == 0, "width", f"a multiple of {whole} for the heads", self.width)
        scale = self.head_scale
        fits = scale is None or (0 < scale < math.inf and not self.tied)
        require(fits, "head_scale", "a positive number with network.tied=false, or none", scale)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"{self.stack}.{k}" for k in range(self.layers))

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the norms in front of the MLPs."""
        return tuple(f"{block}.{self.norm}" for block in self.blocks)

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps at the end of attention and MLP."""
        return tuple(f"{block}.{end}" for block in self.blocks for end in self.ends)

    def build(self, shape: DataShape) -> nn.Module:
        """The library's model with random weights; `head_scale` draws those of the head again.

        Raises:
            MissingExtra: transformers is not installed.
        """
        # END is token 0; without these the library would take the numbers of GPT-2's or Llama's own vocabulary
        special: dict[str, Any] = {
            "bos_token_id": None,
            "eos_token_id": 0,
            "pad_token_id": None,
            "tie_word_embeddings": self.tied,
        }
        with needs("transformers", "language models"), quietly():
            model = self._built(shape.num_features, shape.num_classes, self.mlp_width or 4 * self.width, special)
        if self.head_scale is not None:
            nn.init.normal_(model.get_output_embeddings().weight, std=self.head_scale / self.width**0.5)
        network: nn.Module = model
        return network

    @abstractmethod
    def _built(self, context: int, vocabulary: int, inner: int, special: dict[str, Any]) -> Any:
        """The library's model; `inner` is the inner width of the MLP, `special` the token numbers and tied weights."""


@dataclass(frozen=True, kw_only=True)
class Gpt2Network(CausalNetwork, kind="gpt2"):
    """A GPT-2 of the transformers library, unmodified, with random weights: LayerNorm, learned positions, GELU."""

    stack: ClassVar[str] = "transformer.h"
    norm: ClassVar[str] = "ln_2"
    ends: ClassVar[tuple[str, ...]] = ("attn.c_proj", "mlp.c_proj")

    def _built(self, context: int, vocabulary: int, inner: int, special: dict[str, Any]) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        settings = GPT2Config(
            vocab_size=vocabulary,
            n_positions=context,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            n_inner=inner,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **special,
        )
        return GPT2LMHeadModel(settings)


@dataclass(frozen=True, kw_only=True)
class LlamaNetwork(CausalNetwork, kind="llama"):
    """A Llama of the transformers library, unmodified, with random weights: RMSNorm, rotary positions, gated MLP."""

    per_head: ClassVar[int] = 2  # rotary positions rotate pairs of numbers
    stack: ClassVar[str] = "model.layers"
    norm: ClassVar[str] = "post_attention_layernorm"
    ends: ClassVar[tuple[str, ...]] = ("self_attn.o_proj", "mlp.down_proj")

    kv_heads: int | None = None
    """Number of heads of keys and values, each shared by heads / kv_heads query heads; none: as many as heads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shared = self.kv_heads is None or (self.kv_heads > 0 and self.heads % self.kv_heads == 0)
        require(shared, "kv_heads", f"a divisor of the {self.heads} heads or none", self.kv_heads)

    def _built(self, context: int, vocabulary: int, inner: int, special: dict[str, Any]) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        settings = LlamaConfig(
            vocab_size=vocabulary,
            max_position_embeddings=context,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads or self.heads,
            intermediate_size=inner,
            **special,
        )
        return LlamaForCausalLM(settings)
