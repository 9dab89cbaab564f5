"""A residual convolutional network.

Unusual in it:
- norm and activation come before each convolution, so that nothing but sums lies on the residual stream
- group norms with one group, which do not mix samples as batch norms do: each error row concerns one sample alone
- one resolution and one width in all blocks; the stem alone reduces the resolution, by `stride`
- an image is one error row, so the signal of a block is as wide as channels times places

Shape letters: `N` images · `D` pixels of all channels · `C H W` channels, height, width.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from odfa.data import DataShape
from odfa.errors import ConfigError
from odfa.tasks.base import StackNetwork


class ConvBlock(nn.Module):
    """y = x + conv(gelu(norm(conv(gelu(norm(x)))))) with 3 x 3 convolutions and group norms of one group."""

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
        """(N, C, H, W) → (N, C, H, W)."""
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
        """Logits (N, classes) from flat images (N, D)."""
        x_NCHW = self.stem(x_ND.to(self.head.weight.dtype).view(-1, *self.image))  # (N, width, H / stride, W / stride)
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        logits_NC: Tensor = self.head(self.norm(x_NCHW.mean(dim=(2, 3))))
        return logits_NC


@dataclass(frozen=True, kw_only=True)
class CnnNetwork(StackNetwork, kind="cnn"):
    """A residual convolutional network: a stem with a stride, then blocks of one width and resolution."""

    returns: ClassVar[frozenset[str]] = frozenset({"classes"})

    width: int = 32
    """Channels of the residual stream."""
    layers: int = 3
    """Residual blocks of two 3 x 3 convolutions."""
    stride: int = 4
    """Pixels from one place of the stem's output to the next, in both directions."""

    def __post_init__(self) -> None:
        self._check_positive("width", "layers", "stride")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"blocks.{k}" for k in range(self.layers))

    def num_outputs(self, shape: DataShape) -> int:
        """Number of classes: one error row per image."""
        return shape.num_classes

    def signal_widths(self, shape: DataShape) -> tuple[int, ...]:
        """Channels times places of each block's output."""
        _, height, width = _image(shape)
        # the stem pads by stride - 1, so that its output has ceil(side / stride) places
        places = -(-height // self.stride) * -(-width // self.stride)
        return tuple(width * places for width in self.widths)

    def build(self, shape: DataShape) -> nn.Module:
        """The network with random weights.

        Raises:
            ConfigError: the data are no images.
        """
        return Cnn(
            _image(shape), width=self.width, layers=self.layers, stride=self.stride, num_classes=shape.num_classes
        )


def _image(shape: DataShape) -> tuple[int, int, int]:
    if shape.image is None:
        raise ConfigError(
            "network=cnn: a convolutional network needs images; these data have none; expected other data"
        )
    return shape.image
