"""The error itself, unprojected: a control."""

import copy
from typing import Self

import torch
from torch import Tensor

from odfa.errors import ConfigError
from odfa.project.base import AbstractProjection
from odfa.project.rows import check_shape


class Identity(AbstractProjection):
    """p = e: every block receives the output error unprojected. A control, not a learning rule to propose.

    >>> Identity().shaped(2, 2).project(torch.tensor([[1.0, -2.0]]))
    tensor([[ 1., -2.]])
    """

    isometric = True

    def __repr__(self) -> str:
        return self.identity

    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        """The identity of this width.

        Raises:
            ConfigError: inputs and outputs differ in number.
        """
        check_shape(num_inputs, num_outputs)
        if num_inputs != num_outputs:
            raise ConfigError(
                f"Identity needs an error as wide as the signal, got {num_inputs} error entries for {num_outputs} "
                "outputs; read the error where it has the blocks' width (error_at=...), share one slice between "
                "blocks, or use Gaussian()"
            )
        shaped = copy.copy(self)
        shaped.num_inputs, shaped.num_outputs = num_inputs, num_outputs
        return shaped

    @property
    def identity(self) -> str:
        """The name and the width."""
        return "identity()" if self.num_inputs is None else f"identity(inputs={self.num_inputs})"

    def matrix(self) -> Tensor:
        """The identity matrix.

        Raises:
            ConfigError: the projection has no shape yet.
        """
        if self.num_inputs is None:
            raise ConfigError("this projection has no shape yet; use projection.shaped(num_inputs, num_outputs) first")
        return torch.eye(self.num_inputs)

    def _project(self, e_ND: Tensor) -> Tensor:
        return e_ND.clone()
