"""`OPUMap` as a torch module."""

from typing import Any

import torch
from torch import Tensor, nn

from odfa.compat.lightonml.inputs import Data
from odfa.compat.lightonml.opu import OPU
from odfa.errors import ConfigError


class OPUMap(nn.Module):
    """|R x|^2 (R x if `linear`) of binary tensors, cut from the graph; fits on the first batch unless fitted."""

    def __init__(
        self,
        n_components: int,
        opu: OPU | None = None,
        ndims: int = 1,
        n_2d_features: tuple[int, int] | None = None,
        packed: bool = False,
        simulated: bool = False,
        max_n_features: int | None = None,
        verbose_level: int = -1,
        linear: bool = False,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if ndims not in (1, 2):
            raise ConfigError(f"ndims must be 1 or 2, got {ndims!r}")
        if opu is None and simulated and max_n_features is None:
            raise ConfigError("simulated=True needs max_n_features")
        self.opu = opu or OPU(n_components, max_n_features=max_n_features or 1000, simulated=simulated, seed=seed)
        self.opu.n_components = n_components
        self.ndims, self.n_2d_features, self.packed, self.linear = ndims, n_2d_features, packed, linear
        self.simulated, self.max_n_features, self.fitted = simulated, max_n_features, False

    @property
    def n_components(self) -> int:
        """Number of outputs of the map."""
        return self.opu.n_components

    def fit(
        self,
        X: Data | None = None,
        y: object = None,
        n_features: Any = None,
        packed: bool = False,
        online: bool = False,
    ) -> "OPUMap":
        """Set the shape of vectors; see `OPU.fit1d`, `OPU.fit2d`."""
        fit = self.opu.fit1d if self.ndims == 1 else self.opu.fit2d
        features: Any = self.n_2d_features if self.ndims == 2 and n_features is None else n_features
        fit(X, n_features=features, packed=packed or self.packed, online=online)
        self.fitted = True
        return self

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """Project a batch; without a `fit` before, the first batch sets the shape."""
        if not self.fitted:
            self.fit(input)
        with torch.no_grad():
            project = self.opu.linear_transform if self.linear else self.opu.transform
            output: Tensor = project(input)
        return output.detach()

    def extra_repr(self) -> str:
        """Settings that torch prints with the module."""
        return f"out_features={self.n_components}, ndims={self.ndims}, packed={self.packed}, simulated={self.simulated}"
