"""Denoisers of the diffusers library: a diffusion Transformer (DiT) and a U-Net.

Unusual in the DiT:
- step and class enter each block through a modulation (adaLN-Zero), and all modulations are zero at the start
- classes are dropped by the task, for all blocks of a step alike, not by each block's own embedder
- each patch is one error row
Unusual in the U-Net:
- the library's plain convolutional stages, without attention; one residual layer per stage on the way down
- each stage (down, middle, up) is a block; the skip connections between stages are cut and get no signal
- an image is one error row, so the feedback fills all channels at all places of a stage

Shape letters: `N` images · `D` pixels of all channels · `C H W` channels, height, width · `T` patches.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from odfa.data import DataShape, needs, quietly
from odfa.errors import ConfigError
from odfa.settings import MAX_WIDTH, require
from odfa.tasks.base import AbstractNetwork, StackNetwork


class Denoiser(nn.Module):
    """The library's model, with flat images (N, D) as inputs and outputs.

    Class `num_classes` stands for no class, which guidance without a classifier needs.
    """

    def __init__(self, backbone: nn.Module, shape: DataShape) -> None:
        super().__init__()
        self.backbone, self.image, self.num_classes = backbone, _image(shape), shape.num_classes

    def forward(self, x_ND: Tensor, t_N: Tensor, c_N: Tensor) -> Tensor:
        """The prediction (N, D) from noisy images x_ND at diffusion steps t_N for classes c_N."""
        x_NCHW = x_ND.to(next(self.backbone.parameters()).dtype).view(-1, *self.image)
        predicted = self.backbone(x_NCHW, timestep=t_N, class_labels=c_N).sample
        y_ND: Tensor = predicted.flatten(1).to(x_ND.dtype)
        return y_ND


@dataclass(frozen=True, kw_only=True)
class DitNetwork(StackNetwork, kind="dit"):
    """A diffusion Transformer (DiT) of the diffusers library, unmodified."""

    returns: ClassVar[frozenset[str]] = frozenset({"noise"})

    patch: int = 4
    """Side of a square patch in pixels; it divides the images' side."""
    width: int = 128
    """Width of the residual stream; the MLP is four times as wide."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; they share the width."""

    def __post_init__(self) -> None:
        self._check_positive("patch", "width", "layers", "heads")
        require(self.width % self.heads == 0, "width", f"a multiple of {self.heads} for the heads", self.width)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"backbone.transformer_blocks.{k}" for k in range(self.layers))

    def num_outputs(self, shape: DataShape) -> int:
        """Number of pixels of a patch, all channels: one error row per patch."""
        return _image(shape)[0] * self.patch**2

    def num_rows(self, shape: DataShape) -> int:
        """Number of patches of an image."""
        _, height, width = _image(shape)
        return height * width // self.patch**2

    def build(self, shape: DataShape) -> nn.Module:
        """The network with random weights.

        Raises:
            ConfigError: images are not square or patches do not tile them. MissingExtra: diffusers is not installed.
        """
        channels, height, width = _image(shape)
        if height != width or height % self.patch:
            raise ConfigError(
                f"network.patch: expected square images and a divisor of their side, got {height} x {width} and "
                f"{self.patch}"
            )
        with needs("diffusers", "diffusion models"), quietly():
            from diffusers import DiTTransformer2DModel
        # Any: to type checkers the library's classes have no attributes
        backbone: Any = DiTTransformer2DModel(
            num_attention_heads=self.heads,
            attention_head_dim=self.width // self.heads,
            in_channels=channels,
            out_channels=channels,
            num_layers=self.layers,
            sample_size=height,
            patch_size=self.patch,
            num_embeds_ada_norm=shape.num_classes,
        )
        for block in backbone.transformer_blocks:
            # each block would draw by itself which classes to drop; the task drops them for all blocks alike
            block.norm1.emb.class_embedder.dropout_prob = 0.0
        for modulation in (*(block.norm1.linear for block in backbone.transformer_blocks), backbone.proj_out_1):
            # as in the paper (arXiv 2212.09748) each block starts as the identity; the library leaves this out
            nn.init.zeros_(modulation.weight)
            nn.init.zeros_(modulation.bias)
        return Denoiser(backbone, shape)

    def example(self, shape: DataShape, batch_size: int) -> tuple[Tensor, ...]:
        """Images, steps, classes."""
        return _example(batch_size, shape)


@dataclass(frozen=True, kw_only=True)
class UnetNetwork(AbstractNetwork, kind="unet"):
    """A U-Net of the diffusers library, unmodified, of plain convolutional stages without attention."""

    returns: ClassVar[frozenset[str]] = frozenset({"noise"})

    channels: tuple[int, ...] = (16, 32)
    """Channels of each stage; the resolution is halved from one to the next."""
    groups: int = 8
    """Groups of each group norm; a divisor of every number of channels."""

    def __post_init__(self) -> None:
        require(0 < self.groups <= MAX_WIDTH, "groups", f"a positive number up to {MAX_WIDTH}", self.groups)
        fits = len(self.channels) > 0 and all(0 < c <= MAX_WIDTH and c % self.groups == 0 for c in self.channels)
        require(fits, "channels", f"one or more multiples of {self.groups}, the groups", self.channels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of channels of each block's output: down, middle, up."""
        return (*self.channels, self.channels[-1], *self.channels[::-1])

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last: down, middle, up."""
        stages = range(len(self.channels))
        down = [f"backbone.down_blocks.{k}" for k in stages]
        return (*down, "backbone.mid_block", *(f"backbone.up_blocks.{k}" for k in stages))

    def num_outputs(self, shape: DataShape) -> int:
        """Number of pixels of an image, all channels: one error row per image, since convolutions have no tokens."""
        return shape.num_features

    def signal_widths(self, shape: DataShape) -> tuple[int, ...]:
        """Channels times places of each block's output: down, middle, up."""
        # a stage returns what the next one takes: all but the last halve the resolution, on the way up they double it
        channels, levels = self.channels, range(len(self.channels))
        _, height, width = _image(shape)
        sizes = list(accumulate(levels[1:], lambda size, _: (size[0] // 2, size[1] // 2), initial=(height, width)))
        down = [sizes[min(level + 1, levels[-1])] for level in levels]
        up = [sizes[max(level - 1, 0)] for level in reversed(levels)]
        places = [*down, down[-1], *up]
        return tuple(c * h * w for c, (h, w) in zip((*channels, channels[-1], *channels[::-1]), places, strict=True))

    def build(self, shape: DataShape) -> nn.Module:
        """The network with random weights.

        Raises:
            ConfigError: images cannot be halved so often. MissingExtra: diffusers is not installed.
        """
        channels, height, width = _image(shape)
        halved = 2 ** (len(self.channels) - 1)
        if height % halved or width % halved:
            raise ConfigError(
                f"network.channels: images of {height} x {width} cannot be halved {halved.bit_length() - 1} times; "
                f"expected fewer stages, or sides that are multiples of {halved}"
            )
        with needs("diffusers", "diffusion models"), quietly():
            from diffusers import UNet2DModel
        stages = len(self.channels)
        backbone: Any = UNet2DModel(
            sample_size=(height, width),
            in_channels=channels,
            out_channels=channels,
            block_out_channels=self.channels,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * stages,
            up_block_types=("UpBlock2D",) * stages,
            norm_num_groups=self.groups,
            num_class_embeds=shape.num_classes + 1,
        )
        return Denoiser(backbone, shape)

    def example(self, shape: DataShape, batch_size: int) -> tuple[Tensor, ...]:
        """Images, steps, classes."""
        return _example(batch_size, shape)


def _image(shape: DataShape) -> tuple[int, int, int]:
    if shape.image is None:
        raise ConfigError("network: a denoiser needs images; these data have none; expected other data")
    return shape.image


def _example(batch_size: int, shape: DataShape) -> tuple[Tensor, ...]:
    step_N, class_N = torch.zeros(2, batch_size, dtype=torch.long)
    return torch.empty(batch_size, shape.num_features), step_N, class_N
