"""A vision Transformer that answers with a field, patch by patch.

Shape letters: `N` samples · `D` values of all input channels · `C H W` channels, height, width · `T` patches ·
`K` width · `P` values of a patch, all channels.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from odfa.data import DataShape
from odfa.errors import ConfigError
from odfa.tasks.vision.vit import PatchNetwork


class FieldVit(nn.Module):
    """y = head(backbone(x)) at each patch. Inputs are flat images x_ND, outputs flat fields (N, C H W)."""

    def __init__(self, backbone: nn.Module, head: nn.Linear, shape: DataShape, patch: int) -> None:
        super().__init__()
        assert shape.image is not None
        assert shape.field is not None
        self.backbone, self.head = backbone, head
        self.image, self.field, self.patch = shape.image, shape.field, patch

    def forward(self, x_ND: Tensor) -> Tensor:
        """Flat fields (N, C H W), patch by patch from the tokens that the backbone makes of x_ND."""
        tokens_NTK = self.backbone(pixel_values=x_ND.view(-1, *self.image)).last_hidden_state
        return to_fields(self.head(tokens_NTK[:, 1:]), self.field, self.patch)


@dataclass(frozen=True, kw_only=True)
class FieldVitNetwork(PatchNetwork, kind="field_vit"):
    """A vision Transformer of the transformers library, unmodified, with one linear head that reads each patch."""

    returns: ClassVar[frozenset[str]] = frozenset({"fields"})

    def num_outputs(self, shape: DataShape) -> int:
        """Values of a patch."""
        return _field(shape)[0] * self.patch**2

    def num_rows(self, shape: DataShape) -> int:
        """Patches of a field."""
        _, height, width = _field(shape)
        return height * width // self.patch**2

    def build(self, shape: DataShape) -> nn.Module:
        """The network.

        Raises:
            ConfigError: the data are no images, patches do not tile them, or no field is learned. MissingExtra: no
                transformers.
        """
        backbone, _ = self._backbone(shape)
        return FieldVit(backbone, nn.Linear(self.width, self.num_outputs(shape)), shape, self.patch)


def _field(shape: DataShape) -> tuple[int, int, int]:
    if shape.field is None:
        raise ConfigError("network=field_vit: it answers with fields; these data have none")
    return shape.field


def to_fields(patches_NTP: Tensor, shape: tuple[int, int, int], patch: int) -> Tensor:
    """Patches (N, T, C p p) as flat fields (N, C H W)."""
    channels, height, width = shape
    grid = patches_NTP.reshape(-1, height // patch, width // patch, channels, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches_NTP), -1)
