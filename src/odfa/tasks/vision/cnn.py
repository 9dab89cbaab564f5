"""A residual convolutional network.

Shape letters: `N` images · `D` pixels of all channels · `C H W` channels, height, width.
"""

from torch import Tensor, nn

from odfa.data import DataShape
from odfa.errors import ConfigError
from odfa.train.config import CnnConfig
from odfa.train.networks.base import AbstractNetwork


class ConvBlock(nn.Module):
    """x + conv(gelu(norm(conv(gelu(norm(x)))))), 3 x 3 convolutions, one group per norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(1, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The same shape."""
        y_NCHW: Tensor = x_NCHW + self.branch(x_NCHW)
        return y_NCHW


class Cnn(nn.Module):
    """y_NC = head(mean over places(norm(block_L(… block_1(stem(x)))))), all blocks of one width and resolution."""

    def __init__(self, config: CnnConfig, shape: DataShape) -> None:
        super().__init__()
        assert shape.image is not None
        self.image = shape.image
        self.stem = nn.Conv2d(shape.image[0], config.width, 2 * config.stride - 1, config.stride, config.stride - 1)
        self.blocks = nn.ModuleList(ConvBlock(config.width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, shape.num_classes)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Logits (N, classes)."""
        x_NCHW = self.stem(x_ND.to(self.head.weight.dtype).view(-1, *self.image))
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        logits_NC: Tensor = self.head(self.norm(x_NCHW.mean(dim=(2, 3))))
        return logits_NC


class CnnNetwork(AbstractNetwork[CnnConfig]):
    """One error row per image, as wide as there are classes."""

    @property
    def num_outputs(self) -> int:
        """Classes."""
        return self.shape.num_classes

    @property
    def signal_widths(self) -> tuple[int, ...]:
        """Channels at each place behind the stem."""
        assert self.shape.image is not None
        _, height, width = self.shape.image
        places = -(-height // self.config.stride) * -(-width // self.config.stride)
        return tuple(width * places for width in self.config.widths)

    def build(self) -> nn.Module:
        """The network.

        Raises:
            ConfigError: the data are no images.
        """
        if self.shape.image is None:
            raise ConfigError("a convolutional network needs images; this task has none")
        return Cnn(self.config, self.shape)
