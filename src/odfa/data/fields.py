"""Parts of a data set whose targets are fields over the globe.

Shape letters: `N` samples · `D` values of all input channels · `G` values of a target field · `H W` latitudes,
longitudes.
"""

import dataclasses
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from odfa.data.splits import DataShape, Split, Splits
from odfa.errors import DataError


@dataclass(frozen=True, kw_only=True)
class FieldSplit(Split):
    """Inputs `x_ND` and target fields `y_N` (N, G), float32, standardised: y times `unit` is in the field's own unit.

    `weight_G` is the share of the globe's area that each value stands for, over the mean share.
    """

    weight_G: Tensor
    unit: float
    names: tuple[str, ...]
    """Name of each sample, for figures."""
    beside_NG: Tensor | None = None
    """What is added to targets and predictions to get whole fields, in units of `unit`; None: nothing."""

    def head(self, limit: int | None) -> Self:
        """The first `limit` samples; all of them if `limit` is None."""
        if limit is None:
            return self
        beside_NG = None if self.beside_NG is None else self.beside_NG[:limit]
        return replace(super().head(limit), names=self.names[:limit], beside_NG=beside_NG)

    def take(self, index_N: Tensor) -> Self:
        """The samples with these numbers, in that order."""
        beside_NG = None if self.beside_NG is None else self.beside_NG[index_N]
        names = tuple(self.names[i] for i in index_N.tolist())
        return replace(super().take(index_N), names=names, beside_NG=beside_NG)

    def whole(self, predicted_NG: Tensor) -> Tensor:
        """Whole fields (N, G) in the field's unit: (ŷ + what stands beside) unit."""
        beside_NG = 0.0 if self.beside_NG is None else self.beside_NG
        return (predicted_NG + beside_NG) * self.unit

    def error(self, predicted_NG: Tensor) -> float:
        """Root mean square error in the field's unit, weighted by area.

        sqrt(mean over samples and places of w (ŷ - y)²) unit

        What stands beside is in both whole fields and cancels: this is the error of the whole field.
        """
        square_NG = (predicted_NG - self.y_N).double().square() * self.weight_G
        return float(square_NG.mean().sqrt()) * self.unit


@dataclass(frozen=True, kw_only=True)
class FieldSplits(Splits):
    """Three parts with fields as targets, and what simple predictions reach on the test part."""

    field: tuple[int, int, int]
    """Channels, height and width of a target field."""
    latitude_H: np.ndarray
    longitude_W: np.ndarray
    references: dict[str, float] = dataclasses.field(default_factory=dict)
    """Error of each simple prediction on the test part, in the field's unit."""

    @property
    def shape(self) -> DataShape:
        """The same description that `peek_…` gives."""
        return replace(super().shape, field=self.field)

    def check(self) -> Self:
        """Return self if every part has samples and all values are finite.

        Raises:
            DataError: an empty part, NaN or infinity.
        """
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if not len(part):
                raise DataError(f"{self.source}, {name} part: no sample is left; give more years")
            if not (torch.isfinite(part.x_ND).all() and torch.isfinite(part.y_N).all()):
                raise DataError(f"{self.source}, {name} part: NaN or infinity; repair the files")
        return self


def area_weights(latitude_H: np.ndarray, width: int, channels: int = 1) -> Tensor:
    """Area of each cell of a grid over the mean area, flat (channels H W): the cosine of the latitude."""
    cosine_H = np.cos(np.deg2rad(latitude_H))
    grid = np.broadcast_to((cosine_H / cosine_H.mean())[None, :, None], (channels, len(latitude_H), width))
    return torch.tensor(grid.reshape(-1).copy(), dtype=torch.float32)
