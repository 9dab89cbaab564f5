"""A vision Transformer of the transformers library with a linear head.

Unusual in it:
- the class is read from the mean over patches by default, so that each patch contributes to the error
- the library's pooling layer, a further learned map in front of the head, is left out
- an image is one error row, whatever its number of patches

Shape letters: `N` images · `D` pixels of all channels · `C H W` channels, height, width · `T` patches · `K` width ·
`P` pixels of a patch, all channels.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from odfa.data import DataShape, needs, quietly
from odfa.errors import ConfigError
from odfa.settings import require
from odfa.tasks.base import StackNetwork


class Vit(nn.Module):
    """y = head(read(backbone(x))), where `read` is the mean over patches, or the class token in front of them."""

    def __init__(self, backbone: nn.Module, head: nn.Linear, image: tuple[int, int, int], pooling: str) -> None:
        super().__init__()
        self.backbone, self.head, self.image, self.pooling = backbone, head, image, pooling

    def forward(self, x_ND: Tensor) -> Tensor:
        """Logits (N, classes) from flat images (N, D)."""
        tokens_NTK = self.backbone(pixel_values=x_ND.view(-1, *self.image)).last_hidden_state  # (N, 1 + T, K)
        read_NK = tokens_NTK[:, 0] if self.pooling == "cls" else tokens_NTK[:, 1:].mean(dim=1)
        logits_NC: Tensor = self.head(read_NK)
        return logits_NC


@dataclass(frozen=True, kw_only=True)
class PatchNetwork(StackNetwork):
    """A vision Transformer of the transformers library, unmodified, with one linear head after it."""

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

    def __post_init__(self) -> None:
        self._check_positive("patch", "width", "layers", "heads", "mlp_width")
        require(self.width % self.heads == 0, "width", f"a multiple of {self.heads} for the heads", self.width)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"backbone.layers.{k}" for k in range(self.layers))

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the norms in front of the MLPs."""
        return tuple(f"{block}.layernorm_after" for block in self.blocks)

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps at the end of attention and MLP."""
        return tuple(f"{block}.{end}" for block in self.blocks for end in ("attention.o_proj", "mlp.fc2"))

    def _backbone(self, shape: DataShape) -> tuple[nn.Module, tuple[int, int, int]]:
        """The library's model with random weights, and (channels, height, width) of its images.

        Raises:
            ConfigError: the data are no images, or patches do not tile them. MissingExtra: transformers is not
                installed.
        """
        if shape.image is None:
            raise ConfigError("network: a vision Transformer needs images; these data have none; expected other data")
        channels, height, width = shape.image
        if height % self.patch or width % self.patch:
            raise ConfigError(
                f"network.patch: expected a divisor of {height} and {width}, the size of the images, got {self.patch}"
            )
        with needs("transformers", "vision Transformers"), quietly():
            from transformers import ViTConfig, ViTModel
        settings = ViTConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.mlp_width or 4 * self.width,
            image_size=(height, width),
            patch_size=self.patch,
            num_channels=channels,
        )
        return ViTModel(settings, add_pooling_layer=False), shape.image


@dataclass(frozen=True, kw_only=True)
class VitNetwork(PatchNetwork, kind="vit"):
    """A vision Transformer of the transformers library, unmodified, with one linear head for classes."""

    returns: ClassVar[frozenset[str]] = frozenset({"classes"})

    pooling: Literal["mean", "cls"] = "mean"
    """Input of the head: the mean over patches, or the class token in front of them."""

    def num_outputs(self, shape: DataShape) -> int:
        """Number of classes: one error row per image."""
        return shape.num_classes

    def build(self, shape: DataShape) -> nn.Module:
        """The network with random weights.

        Raises:
            ConfigError: the data are no images, or patches do not tile them. MissingExtra: transformers is not
                installed.
        """
        backbone, image = self._backbone(shape)
        return Vit(backbone, nn.Linear(self.width, shape.num_classes), image, self.pooling)
