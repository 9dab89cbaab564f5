"""A residual convolutional network.

Shape letters: `N` images · `D` pixels of all channels · `C H W` channels, height, width.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from odfa.data import DataShape
from odfa.errors import ConfigError
from odfa.tasks.base import StackNetwork


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

    def __init__(self, image: tuple[int, int, int], *, width: int, layers: int, stride: int, num_classes: int) -> None:
        super().__init__()
        self.image = image
        self.stem = nn.Conv2d(image[0], width, 2 * stride - 1, stride, stride - 1)
        self.blocks = nn.ModuleList(ConvBlock(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Logits (N, classes)."""
        x_NCHW = self.stem(x_ND.to(self.head.weight.dtype).view(-1, *self.image))
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        logits_NC: Tensor = self.head(self.norm(x_NCHW.mean(dim=(2, 3))))
        return logits_NC


@dataclass(frozen=True, kw_only=True)
class CnnNetwork(StackNetwork, kind="cnn"):
    """A residual convolutional network: a stem that thins out the places, then blocks of one width and resolution."""

    returns: ClassVar[frozenset[str]] = frozenset({"classes"})

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

    def num_outputs(self, shape: DataShape) -> int:
        """Classes: one error row per image."""
        return shape.num_classes

    def signal_widths(self, shape: DataShape) -> tuple[int, ...]:
        """Channels at each place behind the stem."""
        _, height, width = _image(shape)
        places = -(-height // self.stride) * -(-width // self.stride)
        return tuple(width * places for width in self.widths)

    def build(self, shape: DataShape) -> nn.Module:
        """The network.

        Raises:
            ConfigError: the data are no images.
        """
        return Cnn(
            _image(shape), width=self.width, layers=self.layers, stride=self.stride, num_classes=shape.num_classes
        )


def _image(shape: DataShape) -> tuple[int, int, int]:
    if shape.image is None:
        raise ConfigError("network=cnn: a convolutional network needs images; these data have none")
    return shape.image
