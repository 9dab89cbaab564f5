"""Networks, as settings."""

import math
from dataclasses import dataclass
from typing import Literal

from odfa.train.config.base import MAX_LAYERS, MAX_WIDTH, require


class NetworkConfig:
    """What every network says of its blocks; most have no branches that could learn by themselves."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each block's output."""
        raise NotImplementedError

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        raise NotImplementedError

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the norms where the MLPs branch off the residual stream; none where nothing branches off."""
        return ()

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps that end the branches; none if there are no branches."""
        return ()


class StackConfig(NetworkConfig):
    """A stack of `layers` blocks on a residual stream of one `width`."""

    width: int
    layers: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each block's output."""
        return (self.width,) * self.layers

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value, most = getattr(self, name), MAX_LAYERS if name == "layers" else MAX_WIDTH
            require(value is None or 0 < value <= most, f"model.{name}", f"a positive number up to {most}", value)


@dataclass(frozen=True, kw_only=True)
class MlpConfig(NetworkConfig):
    """A multilayer perceptron: one block (linear map and activation) per hidden width, then a linear head."""

    widths: tuple[int, ...] = (128, 128)
    """Widths of the hidden blocks, from input to output."""
    activation: Literal["tanh", "gelu", "relu"] = "tanh"
    """Non-linearity at the end of each block."""

    def __post_init__(self) -> None:
        fits = len(self.widths) > 0 and all(0 < width <= MAX_WIDTH for width in self.widths)
        require(fits, "model.widths", f"one or more positive widths up to {MAX_WIDTH}", self.widths)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"blocks.{k}" for k in range(len(self.widths)))


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(StackConfig):
    """A causal language model of the transformers library, unmodified, built from its config with random weights."""

    family: Literal["gpt2", "llama"] = "gpt2"
    """gpt2: LayerNorm, learned positions, GELU; llama: RMSNorm, rotary positions, gated MLP, grouped heads."""
    width: int = 256
    """Width of the residual stream."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; they share the width."""
    kv_heads: int | None = None
    """llama: heads of keys and values, each serves heads / kv_heads queries; none: as many as heads."""
    mlp_width: int | None = None
    """Inner width of the MLP; none: four times the width."""
    tied: bool = False
    """Whether the read-out shares the embedding's weights; aligned rules need false."""
    readout_scale: float | None = None
    """Standard deviation of the untied read-out's initial weights times the root of the width, none: the library's
    0.02; aligned rules set feedback.scale instead."""

    def __post_init__(self) -> None:
        self._check_positive("width", "layers", "heads", "mlp_width")
        per_head = 2 * self.heads if self.family == "llama" else self.heads  # rotary positions turn pairs
        require(self.width % per_head == 0, "model.width", f"a multiple of {per_head} for the heads", self.width)
        shared = self.kv_heads is None or (self.kv_heads > 0 and self.heads % self.kv_heads == 0)
        require(shared, "model.kv_heads", f"a divisor of the {self.heads} heads or none", self.kv_heads)
        scale = self.readout_scale
        fits = scale is None or (0 < scale < math.inf and not self.tied)
        require(fits, "model.readout_scale", "a positive number with model.tied=false, or none", scale)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the norms where the MLPs branch off the residual stream."""
        norm = "ln_2" if self.family == "gpt2" else "post_attention_layernorm"
        return tuple(f"{block}.{norm}" for block in self.blocks)

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps that end the branches."""
        ends = ("attn.c_proj", "mlp.c_proj") if self.family == "gpt2" else ("self_attn.o_proj", "mlp.down_proj")
        return tuple(f"{block}.{end}" for block in self.blocks for end in ends)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        stack = "transformer.h" if self.family == "gpt2" else "model.layers"
        return tuple(f"{stack}.{k}" for k in range(self.layers))


@dataclass(frozen=True, kw_only=True)
class VitConfig(StackConfig):
    """A vision Transformer of the transformers library, unmodified, with one linear read-out behind it."""

    patch: int = 4
    """Side of a square patch in pixels; it divides height and width."""
    width: int = 64
    """Width of the residual stream."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; they share the width."""
    mlp_width: int | None = None
    """Inner width of the MLP; none: four times the width."""
    pooling: Literal["mean", "cls"] = "mean"
    """What a class is read from: the mean over patches, or the token in front of them. Fields are read patch by patch,
    whatever this says."""

    def __post_init__(self) -> None:
        self._check_positive("patch", "width", "layers", "heads", "mlp_width")
        require(self.width % self.heads == 0, "model.width", f"a multiple of {self.heads} for the heads", self.width)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"backbone.layers.{k}" for k in range(self.layers))

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the norms where the MLPs branch off the residual stream."""
        return tuple(f"{block}.layernorm_after" for block in self.blocks)

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps that end the branches."""
        return tuple(f"{block}.{end}" for block in self.blocks for end in ("attention.o_proj", "mlp.fc2"))


@dataclass(frozen=True, kw_only=True)
class CnnConfig(StackConfig):
    """A residual convolutional network: a stem that thins out the places, then blocks of one width and resolution."""

    width: int = 32
    """Channels of the residual stream."""
    layers: int = 3
    """Residual blocks of two 3 x 3 convolutions."""
    stride: int = 4
    """Pixels between two places behind the stem, each way."""

    def __post_init__(self) -> None:
        self._check_positive("width", "layers", "stride")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"blocks.{k}" for k in range(self.layers))


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What a denoiser learns to undo; its schedulers are those of the diffusers library."""

    timesteps: int = 1000
    """Steps of the diffusion."""
    schedule: Literal["squaredcos_cap_v2", "linear"] = "squaredcos_cap_v2"
    """How noise grows with the step, in the library's words."""
    prediction: Literal["v_prediction", "epsilon", "sample"] = "v_prediction"
    """What is predicted: velocity, noise or image."""
    drop_class: float = 0.1
    """Share of the training images whose class is not told, for guidance without a classifier."""

    def __post_init__(self) -> None:
        require(0 < self.timesteps <= MAX_WIDTH, "model.timesteps", "a positive number of steps", self.timesteps)
        require(0 <= self.drop_class < 1, "model.drop_class", "a share in [0, 1)", self.drop_class)


@dataclass(frozen=True, kw_only=True)
class DitConfig(DiffusionConfig, StackConfig):
    """A diffusion Transformer (DiT) of the diffusers library, unmodified; step and class condition each block."""

    patch: int = 4
    """Side of a square patch in pixels; it divides the images' side."""
    width: int = 128
    """Width of the residual stream; the MLP is four times as wide."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; they share the width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("patch", "width", "layers", "heads")
        require(self.width % self.heads == 0, "model.width", f"a multiple of {self.heads} for the heads", self.width)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"backbone.transformer_blocks.{k}" for k in range(self.layers))


@dataclass(frozen=True, kw_only=True)
class UnetConfig(DiffusionConfig, NetworkConfig):
    """A U-Net of the diffusers library, unmodified, without attention."""

    channels: tuple[int, ...] = (16, 32)
    """Channels of each stage; the resolution is halved from one to the next."""
    groups: int = 8
    """Groups of a norm; they divide the channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.groups <= MAX_WIDTH, "model.groups", f"a positive number up to {MAX_WIDTH}", self.groups)
        fits = len(self.channels) > 0 and all(0 < c <= MAX_WIDTH and c % self.groups == 0 for c in self.channels)
        require(fits, "model.channels", f"one or more multiples of {self.groups}, the groups", self.channels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each block's output."""
        return (*self.channels, self.channels[-1], *self.channels[::-1])

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last: down, middle, up."""
        stages = range(len(self.channels))
        down = [f"backbone.down_blocks.{k}" for k in stages]
        return (*down, "backbone.mid_block", *(f"backbone.up_blocks.{k}" for k in stages))


AnyModel = MlpConfig | CnnConfig | TransformerConfig | VitConfig | DitConfig | UnetConfig
