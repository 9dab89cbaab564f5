"""The output error copied unprojected to every block: a control that experiments compare with."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from odfa.errors import ConfigError
from odfa.project.base import AbstractProjection
from odfa.project.digital import EncodedSettings
from odfa.project.rows import check_shape
from odfa.settings import require


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
                "outputs; share one slice between blocks, RandomFeedback(shared=True) or in a run rule.shared=true; or "
                "project the error, Gaussian() or in a run projection=gaussian; a DFA of your own may also read the "
                "error where it has the blocks' width, by its argument error_at"
            )
        shaped = copy.copy(self)
        shaped.num_inputs, shaped.num_outputs = num_inputs, num_outputs
        return shaped

    @property
    def identity(self) -> str:
        """The name, and the width once it is known."""
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


@dataclass(frozen=True, kw_only=True)
class IdentitySettings(EncodedSettings, kind="identity"):
    """The error of the last block, copied unprojected to the others: a control. Blocks of one width only."""

    dashes = (0, (5, 1, 1, 1))

    def bare(self) -> Identity:
        """`Identity()`, without a shape."""
        return Identity()

    def tap(self, blocks: Sequence[str]) -> str:
        """The last block, whose output is as wide as the signals."""
        return blocks[-1]

    def check(self, *, run_seed: int, num_inputs: int, num_outputs: int, widths: Sequence[int]) -> None:
        """Refuse blocks of several widths.

        Raises:
            SettingError: the widths differ.
        """
        require(len(set(widths)) <= 1, "", "blocks of one width with an unprojected error", tuple(widths))
        wide = f"an error as wide as the blocks' signals, {widths[0]}, to be copied unprojected"
        require(num_inputs == widths[0], "", wide, num_inputs)

    @property
    def label(self) -> str:
        """The word "identity", with "encoded" after it where there is an encoder."""
        return "identity" if self.encoder is None else "identity, encoded"

    @property
    def electronic(self) -> str:
        """All of the learning: no projection takes place."""
        copied = "error" if self.encoder is None else "encoded error"
        return f"all: exact gradient for the last block, whose {copied} is copied unprojected to the others"
