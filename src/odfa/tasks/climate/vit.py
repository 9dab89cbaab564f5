"""A vision Transformer that predicts a field, patch by patch.

Unusual in it:
- one linear head reads each patch's token and predicts the pixels of the same patch; the class token is not read
- input channels that are one number (lead time, forcing) are repeated over the whole grid
- each patch is one error row, so the feedback is projected per patch

Shape letters: `N` samples · `D` values of all input channels · `C H W` channels, height, width · `T` patches ·
`K` width · `P` values of a patch, all channels.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from odfa.data import DataShape
from odfa.errors import ConfigError
from odfa.settings import require
from odfa.tasks.vision.vit import PatchNetwork


class FieldVit(nn.Module):
    """y = head(backbone(x)) at each patch; inputs are flat images (N, D), outputs flat fields (N, C H W)."""

    def __init__(self, backbone: nn.Module, head: nn.Linear, shape: DataShape, patch: int) -> None:
        super().__init__()
        assert shape.image is not None
        assert shape.field is not None
        self.backbone, self.head = backbone, head
        self.image, self.field, self.patch = shape.image, shape.field, patch

    def forward(self, x_ND: Tensor) -> Tensor:
        """Flat fields (N, C H W) from flat images (N, D)."""
        tokens_NTK = self.backbone(pixel_values=x_ND.view(-1, *self.image)).last_hidden_state  # (N, 1 + T, K)
        patches_NTP = self.head(tokens_NTK[:, 1:])  # without the class token in front
        return to_fields(patches_NTP, self.field, self.patch)


@dataclass(frozen=True, kw_only=True)
class FieldVitNetwork(PatchNetwork, kind="field_vit"):
    """A vision Transformer of the transformers library, unmodified, with one linear head for each patch of a field."""

    returns: ClassVar[frozenset[str]] = frozenset({"fields"})
    of_head: ClassVar[tuple[str, ...]] = ("head_scale",)

    head_scale: float | None = None
    """Standard deviation of the head's initial weights times the root of the width, with biases of zero; none: the
    uniform start of torch. Aligned rules overwrite these weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.head_scale is None or 0 < self.head_scale < math.inf
        require(fits, "head_scale", "a positive number or none", self.head_scale)

    def num_outputs(self, shape: DataShape) -> int:
        """Number of values of a patch, all channels: one error row per patch."""
        return _field(shape)[0] * self.patch**2

    def num_rows(self, shape: DataShape) -> int:
        """Number of patches of a field."""
        _, height, width = _field(shape)
        return height * width // self.patch**2

    def build(self, shape: DataShape) -> nn.Module:
        """The network with random weights.

        Raises:
            ConfigError: the data are no images, patches do not tile them, or the targets are no fields. MissingExtra:
                transformers is not installed.
        """
        backbone, _ = self._backbone(shape)
        head = nn.Linear(self.width, self.num_outputs(shape))
        if self.head_scale is not None:
            nn.init.normal_(head.weight, std=self.head_scale / self.width**0.5)
            nn.init.zeros_(head.bias)
        return FieldVit(backbone, head, shape, self.patch)


def _field(shape: DataShape) -> tuple[int, int, int]:
    if shape.field is None:
        raise ConfigError("network=field_vit: expected data with fields, which it predicts; these have none")
    return shape.field


def to_fields(patches_NTP: Tensor, shape: tuple[int, int, int], patch: int) -> Tensor:
    """Put patches (N, T, C p p), row by row, together to flat fields (N, C H W)."""
    channels, height, width = shape
    grid = patches_NTP.reshape(-1, height // patch, width // patch, channels, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches_NTP), -1)
