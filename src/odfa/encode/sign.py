"""The sign of each entry of the error, in two patterns, at the row's mean magnitude."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odfa.encode.base import AbstractEncoder, EncoderSettings, check_rows
from odfa.flow import Frames


class Sign(AbstractEncoder):
    """t = sign(e), times the mean |e| of the row's non-zero entries; zeros stay dark. cos(e, t) = 0.80 for Gaussian e.

    >>> Sign().encode(torch.tensor([[4.0, -2.0, 0.0]])).values()
    tensor([[ 3., -3.,  0.]])
    """

    name = "sign"

    def __repr__(self) -> str:
        return self.name

    @property
    def patterns_per_sample(self) -> int:
        """Two patterns, plus and minus."""
        return 2

    def encode(self, e_ND: Tensor) -> Frames:
        """Signs of each row with the least-squares scale.

        Raises:
            ConfigError: `e_ND` is not a matrix of floating-point numbers with at least one column.
        """
        e_ND = check_rows(e_ND)
        bits_NFD = torch.stack([e_ND > 0, e_ND < 0], dim=1)
        scale_N1 = e_ND.abs().sum(1, keepdim=True) / bits_NFD.sum(dim=(1, 2)).clamp_min(1)[:, None]
        return Frames(bits_NFD=bits_NFD, gain_NF=torch.cat([scale_N1, -scale_N1], dim=1), encoder=self.name)


@dataclass(frozen=True, kw_only=True)
class SignSettings(EncoderSettings, kind="sign"):
    """The sign of each entry, at the row's mean magnitude; deterministic."""

    @property
    def code(self) -> str:
        """The word "ternary": signs and zeros are a ternary code."""
        return "ternary"

    def build(self, seed: int) -> Sign:
        """`Sign()`; nothing is drawn with `seed`."""
        return Sign()
