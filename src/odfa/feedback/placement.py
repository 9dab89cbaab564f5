"""How projected rows become the signal of one block's output."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from odfa.errors import MatchError


@dataclass(frozen=True)
class Placement:
    """One block output of `shape` fed from error rows of leading shape `lead`.

    `width` K is the number of projected values per row; `summed` rows of one sample are added up first (the projection
    is linear, so this is the projection of the summed error); `spread` tokens share a sample's signal equally.
    """

    shape: tuple[int, ...]
    lead: tuple[int, ...]
    width: int
    summed: bool
    spread: int

    def signal(self, p_NK: Tensor, scale: float) -> Tensor:
        """Signal of the block's shape: scale / spread * p, rows summed per sample where `summed`."""
        rows = torch.unflatten(p_NK, 0, self.lead)
        if self.summed:
            rows = rows.sum(dim=1)
        if self.spread > 1:
            rows = rows.unsqueeze(1).expand(-1, self.spread, -1)
        return (rows * (scale / self.spread)).reshape(self.shape)


def place(shape: tuple[int, ...], lead: tuple[int, ...], block: str, *, per_sample: bool = False) -> Placement:
    """Placement of error rows (leading shape (B,) or (B, T)) at a block output.

    | block output | rows (B,) | rows (B, T) |
    | --- | --- | --- |
    | (B, K) | one signal per sample | summed over T |
    | (B, T, K) | shared by the T tokens, 1/T each | one signal per token, unless `per_sample` |
    | (B, T', K) | shared by the T' tokens | summed over T, shared by the T' tokens |
    | (B, C, H, W), … | K = C·H·W, every unit its own | summed over T |

    Three axes are always read as (batch, token, channel).

    Raises:
        MatchError: the first axes differ, so that no row belongs to any sample.
    """
    if not shape or shape[0] != lead[0]:
        raise MatchError(
            f"block {block} returned shape {shape}, the error has leading shape {lead}: "
            "the first axis of both must be the batch; choose other blocks or another error_at"
        )
    if len(shape) == 3:
        per_token = shape[:2] == lead and not per_sample
        return Placement(shape, lead, shape[2], len(lead) == 2 and not per_token, 1 if per_token else shape[1])
    return Placement(shape, lead, prod(shape[1:]), len(lead) == 2, 1)
