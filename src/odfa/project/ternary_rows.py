"""Rows of one magnitude: t in {-1, 0, 1} and a scale, as ternary encoders make them."""

import torch
from torch import Tensor

from odfa.errors import ConfigError


def split_ternary(e_ND: Tensor) -> tuple[Tensor, Tensor] | None:
    """(t_ND int8, scale_N float32) with e = scale t exactly, or None if a row has two magnitudes."""
    if e_ND.dtype == torch.int8:
        return e_ND, torch.ones(len(e_ND))
    size_ND = e_ND.abs()
    scale_N1 = size_ND.amax(1, keepdim=True)
    if not ((size_ND == scale_N1) | (size_ND == 0)).all():
        return None
    return e_ND.sign().to(torch.int8), scale_N1[:, 0].float()


def require_ternary(e_ND: Tensor, who: str) -> tuple[Tensor, Tensor]:
    """(t_ND, scale_N) of ternary rows.

    Raises:
        ConfigError: a row has more than one magnitude.
    """
    found = split_ternary(e_ND)
    if found is None:
        raise ConfigError(
            f"{who} takes ternary rows (-1, 0, 1 times one scale a row), got real values; put an encoder before it "
            "(encoder=odfa.Ternary()) or use precision='float32'"
        )
    return found
