"""Denoisers of the diffusers library: a diffusion Transformer (DiT) and a U-Net.

Shape letters: `N` images · `D` pixels of all channels · `C H W` channels, height, width · `T` patches.
"""

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from odfa import data
from odfa.data import DataShape
from odfa.errors import ConfigError
from odfa.train.config import DitConfig, UnetConfig
from odfa.train.networks.base import AbstractNetwork


class Denoiser(nn.Module):
    """What the library's model predicts from noisy images x_ND at diffusion steps t_N for classes c_N, flat (N, D).

    Class `num_classes` is none of them, for guidance without a classifier.
    """

    def __init__(self, backbone: nn.Module, config: DitConfig | UnetConfig, shape: DataShape) -> None:
        super().__init__()
        assert shape.image is not None
        self.backbone, self.config, self.image, self.num_classes = backbone, config, shape.image, shape.num_classes

    def forward(self, x_ND: Tensor, t_N: Tensor, c_N: Tensor) -> Tensor:
        """The prediction, of the images' shape and precision."""
        x_NCHW = x_ND.to(next(self.backbone.parameters()).dtype).view(-1, *self.image)
        predicted = self.backbone(x_NCHW, timestep=t_N, class_labels=c_N).sample
        y_ND: Tensor = predicted.flatten(1).to(x_ND.dtype)
        return y_ND


class DitNetwork(AbstractNetwork[DitConfig]):
    """One error row per patch, as wide as its pixels."""

    @property
    def num_outputs(self) -> int:
        """Pixels of a patch."""
        return _image(self.shape)[0] * self.config.patch**2

    @property
    def num_rows(self) -> int:
        """Patches of an image."""
        _, height, width = _image(self.shape)
        return height * width // self.config.patch**2

    def build(self) -> nn.Module:
        """The network.

        Raises:
            ConfigError: images are not square or patches do not tile them. MissingExtra: diffusers is not installed.
        """
        channels, height, width = _image(self.shape)
        if height != width or height % self.config.patch:
            raise ConfigError(
                f"model.patch: expected square images and a divisor of their side, got {height} x {width} and "
                f"{self.config.patch}"
            )
        with data.needs("diffusers", "diffusion models"), data.quietly():
            from diffusers import DiTTransformer2DModel
        backbone: Any = DiTTransformer2DModel(
            num_attention_heads=self.config.heads,
            attention_head_dim=self.config.width // self.config.heads,
            in_channels=channels,
            out_channels=channels,
            num_layers=self.config.layers,
            sample_size=height,
            patch_size=self.config.patch,
            num_embeds_ada_norm=self.shape.num_classes,
        )
        for block in backbone.transformer_blocks:
            # each block would drop classes by itself; the task drops them for all blocks at once
            block.norm1.emb.class_embedder.dropout_prob = 0.0
        for modulation in (*(block.norm1.linear for block in backbone.transformer_blocks), backbone.proj_out_1):
            # as in the paper (arXiv 2212.09748), blocks begin as the identity; the library leaves this out
            nn.init.zeros_(modulation.weight)
            nn.init.zeros_(modulation.bias)
        return Denoiser(backbone, self.config, self.shape)

    def example(self, batch_size: int) -> tuple[Tensor, ...]:
        """Images, steps, classes."""
        return _example(batch_size, self.shape)


class UnetNetwork(AbstractNetwork[UnetConfig]):
    """One error row per image, as wide as its pixels: what a convolution returns has no tokens."""

    @property
    def num_outputs(self) -> int:
        """Pixels of an image."""
        return self.shape.num_features

    @property
    def signal_widths(self) -> tuple[int, ...]:
        """Channels at each place, block by block: the resolution is halved from stage to stage, and doubled again."""
        channels, levels = self.config.channels, range(len(self.config.channels))
        _, height, width = _image(self.shape)
        sizes = list(accumulate(levels[1:], lambda size, _: (size[0] // 2, size[1] // 2), initial=(height, width)))
        down = [sizes[min(level + 1, levels[-1])] for level in levels]
        up = [sizes[max(level - 1, 0)] for level in reversed(levels)]
        places = [*down, down[-1], *up]
        return tuple(c * h * w for c, (h, w) in zip((*channels, channels[-1], *channels[::-1]), places, strict=True))

    def build(self) -> nn.Module:
        """The network.

        Raises:
            ConfigError: images cannot be halved so often. MissingExtra: diffusers is not installed.
        """
        channels, height, width = _image(self.shape)
        halved = 2 ** (len(self.config.channels) - 1)
        if height % halved or width % halved:
            raise ConfigError(
                f"model.channels: images of {height} x {width} cannot be halved {halved.bit_length() - 1} times"
            )
        with data.needs("diffusers", "diffusion models"), data.quietly():
            from diffusers import UNet2DModel
        stages = len(self.config.channels)
        backbone: Any = UNet2DModel(
            sample_size=(height, width),
            in_channels=channels,
            out_channels=channels,
            block_out_channels=self.config.channels,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * stages,
            up_block_types=("UpBlock2D",) * stages,
            norm_num_groups=self.config.groups,
            num_class_embeds=self.shape.num_classes + 1,
        )
        return Denoiser(backbone, self.config, self.shape)

    def example(self, batch_size: int) -> tuple[Tensor, ...]:
        """Images, steps, classes."""
        return _example(batch_size, self.shape)


def _image(shape: DataShape) -> tuple[int, int, int]:
    if shape.image is None:
        raise ConfigError("a denoiser needs images; this task has none")
    return shape.image


def _example(batch_size: int, shape: DataShape) -> tuple[Tensor, ...]:
    step_N, class_N = torch.zeros(2, batch_size, dtype=torch.long)
    return torch.empty(batch_size, shape.num_features), step_N, class_N
