"""What projections do around the product: leave out rows of zeros, scale huge rows down, check shapes and keys."""

from collections.abc import Callable

import torch
from torch import Tensor

from odfa.settings import SettingError, shown

_SAFE_LOG = 63
SAFE = 2.0**_SAFE_LOG
"""What entries may be: three transforms of 2^24 points and an encoder's squares stay below float32's 2^128."""
_BELOW_LOG = -65
"""log2 of what brings float32's largest numbers below that."""


def project_lit(e_ND: Tensor, num_outputs: int, project: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `project` to the rows of `e_ND` that are not all zero; the others give zeros."""
    # padding and ignored labels give rows of zeros; an OPU would spend frames, and add noise, on each of them
    lit_N = e_ND.any(dim=1)
    num_lit = int(lit_N.sum())  # the one number that is waited for: it decides what is drawn and shown
    if num_lit == len(e_ND) > 0:
        return project(e_ND)
    p_NM = e_ND.new_zeros((len(e_ND), num_outputs))
    if num_lit:
        p_NM[lit_N] = project(e_ND[lit_N])
    return p_NM


def project_scaled(e_ND: Tensor, largest: float | None, project: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `project`, a linear map; rows of huge values as smaller ones, for partial sums exceed what comes out.

    `largest` is the size of the largest entry; None: it is not known here, and nothing waits for it. The scale is a
    power of two of each row: exact, and 1 for other rows.
    """
    if largest is not None and not largest > SAFE:
        return project(e_ND)
    size_N1 = (torch.view_as_real(e_ND).flatten(1) if e_ND.is_complex() else e_ND).abs().amax(dim=1, keepdim=True)
    if largest is None:
        down_N1 = torch.where(size_N1 > SAFE, 2.0**_BELOW_LOG, 1.0).to(size_N1.dtype)
        return project(e_ND * down_N1) / down_N1
    over_N1 = (torch.frexp(size_N1).exponent - _SAFE_LOG).clamp(min=0)
    one_N1 = torch.ones_like(size_N1)
    return project(e_ND * torch.ldexp(one_N1, -over_N1)) * torch.ldexp(one_N1, over_N1)


def check_shape(num_inputs: int, num_outputs: int) -> None:
    """Refuse shapes without inputs or outputs.

    Raises:
        SettingError: a width is not a positive integer.
    """
    for name, width in (("num_inputs", num_inputs), ("num_outputs", num_outputs)):
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise SettingError(name, f"expected a positive integer, got {shown(width)}")


def check_seed(seed: int) -> None:
    """Refuse keys that are not integers.

    Raises:
        SettingError: `seed` is not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise SettingError("seed", f"expected an integer, got {shown(seed)}")
