"""A vision Transformer of the transformers library with a linear read-out.

Shape letters: `N` images · `D` pixels of all channels · `C H W` channels, height, width · `T` patches · `K` width ·
`P` pixels of a patch, all channels.
"""

from torch import Tensor, nn

from odfa import data
from odfa.data import DataShape
from odfa.errors import ConfigError
from odfa.train.config import VitConfig
from odfa.train.networks.base import AbstractNetwork


class Vit(nn.Module):
    """y = head(backbone(x)): classes from the mean over patches or from the leading token, fields from each patch.

    Inputs are flat images x_ND; outputs are logits (N, classes) or flat fields (N, C H W).
    """

    def __init__(self, config: VitConfig, shape: DataShape) -> None:
        super().__init__()
        with data.needs("transformers", "vision Transformers"), data.quietly():
            from transformers import ViTConfig, ViTModel
        assert shape.image is not None
        self.image, self.field, self.patch, self.pooling = shape.image, shape.field, config.patch, config.pooling
        channels, height, width = shape.image
        settings = ViTConfig(
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_width or 4 * config.width,
            image_size=(height, width),
            patch_size=config.patch,
            num_channels=channels,
        )
        self.backbone = ViTModel(settings, add_pooling_layer=False)
        self.head = nn.Linear(config.width, VitNetwork(config, shape).num_outputs)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Logits or fields."""
        tokens_NTK = self.backbone(pixel_values=x_ND.view(-1, *self.image)).last_hidden_state
        if self.field is not None:
            read = tokens_NTK[:, 1:]
        else:
            read = tokens_NTK[:, 0] if self.pooling == "cls" else tokens_NTK[:, 1:].mean(dim=1)
        y: Tensor = self.head(read)
        return y if self.field is None else to_fields(y, self.field, self.patch)


class VitNetwork(AbstractNetwork[VitConfig]):
    """One error row per image, or one per patch where a field is asked for."""

    @property
    def num_outputs(self) -> int:
        """Classes, or pixels of a patch."""
        field = self.shape.field
        return field[0] * self.config.patch**2 if field else self.shape.num_classes

    @property
    def num_rows(self) -> int:
        """One, or the patches of a field."""
        field = self.shape.field
        return field[1] * field[2] // self.config.patch**2 if field else 1

    def build(self) -> nn.Module:
        """The network.

        Raises:
            ConfigError: the data are no images, or patches do not tile them.
        """
        if self.shape.image is None:
            raise ConfigError("a vision Transformer needs images; this task has none")
        _, height, width = self.shape.image
        if height % self.config.patch or width % self.config.patch:
            raise ConfigError(
                f"model.patch: expected a divisor of {height} and {width}, the size of the images, "
                f"got {self.config.patch}"
            )
        return Vit(self.config, self.shape)


def to_fields(patches_NTP: Tensor, shape: tuple[int, int, int], patch: int) -> Tensor:
    """Patches (N, T, C p p) as flat fields (N, C H W)."""
    channels, height, width = shape
    grid = patches_NTP.reshape(-1, height // patch, width // patch, channels, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches_NTP), -1)
