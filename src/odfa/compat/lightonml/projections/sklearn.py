"""`OPUMap` as a scikit-learn transformer."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from odfa.compat.lightonml.inputs import Data
from odfa.compat.lightonml.opu import OPU
from odfa.errors import ConfigError


class OPUMap(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """|R x|^2 (R x if `linear`) of binary rows; the OPU is made in `fit`, so clones and pickles carry settings only."""

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
        seed: int = 0,
    ) -> None:
        self.n_components, self.opu, self.ndims, self.n_2d_features = n_components, opu, ndims, n_2d_features
        self.packed, self.simulated, self.max_n_features = packed, simulated, max_n_features
        self.verbose_level, self.linear, self.seed = verbose_level, linear, seed

    def fit(
        self,
        X: Data | None = None,
        y: object = None,
        n_features: Any = None,
        packed: bool = False,
        online: bool = False,
    ) -> Self:
        """Make the OPU and set the shape of its vectors.

        Raises:
            ConfigError: neither opu nor simulated with max_n_features, or what `OPU.fit1d` refuses.
        """
        if self.ndims not in (1, 2):
            raise ConfigError(f"ndims must be 1 or 2, got {self.ndims!r}")
        if self.opu is None and self.simulated and self.max_n_features is None:
            raise ConfigError("simulated=True needs max_n_features")
        self.opu_ = self.opu or OPU(
            self.n_components, max_n_features=self.max_n_features or 1000, simulated=self.simulated, seed=self.seed
        )
        self.opu_.n_components = self.n_components
        fit = self.opu_.fit1d if self.ndims == 1 else self.opu_.fit2d
        features: Any = self.n_2d_features if self.ndims == 2 and n_features is None else n_features
        fit(X, n_features=features, packed=packed or self.packed, online=online)
        return self

    def transform(self, X: Data, y: object = None) -> np.ndarray:
        """Project; fits on X first if that has not been done."""
        if not hasattr(self, "opu_"):
            self.fit(X)
        return np.array(self.opu_.linear_transform(X) if self.linear else self.opu_.transform(X))
