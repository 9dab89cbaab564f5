"""How projected rows become the signal of one block's output."""

from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from odfa.errors import MatchError

Axes = tuple[int, int]
"""Which axis is the batch: of the error's leading shape, and of a block's output."""


@dataclass(frozen=True)
class Placement:
    """One block output of `shape` fed from error rows of leading shape `lead`, the batch lying where `axes` says.

    `width` K is the number of projected values per row; `summed` rows of one sample are added up first (the projection
    is linear, so this is the projection of the summed error); `spread` tokens share a sample's signal equally.
    """

    shape: tuple[int, ...]
    lead: tuple[int, ...]
    axes: Axes
    width: int
    summed: bool
    spread: int

    def signal(self, p_NK: Tensor, scale: float) -> Tensor:
        """Signal of the block's shape: scale / spread * p, rows summed per sample where `summed`."""
        # summed after the projection, though the sum of errors would give the same: blocks of one projection may differ
        # in whether they want the rows of a sample summed
        of_error, of_block = self.axes
        rows = torch.unflatten(p_NK, 0, self.lead).movedim(of_error, 0)
        if self.summed:
            rows = rows.sum(dim=1)
        if self.spread > 1:
            rows = rows.unsqueeze(1).expand(-1, self.spread, -1)
        batch_first = (self.shape[of_block], *self.shape[:of_block], *self.shape[of_block + 1 :])
        return (rows * (scale / self.spread)).reshape(batch_first).movedim(0, of_block)

    def rows(self, output: Tensor) -> Tensor:
        """An output of the block as h_NK, one row per row of the error: <signal(p, 1), output> = <p, rows(output)>.

        Tokens that share a signal are averaged; rows whose signals are summed have the same h.
        """
        of_error, of_block = self.axes
        batch_first = output.movedim(of_block, 0)
        per_token = len(self.lead) == 2 and not self.summed
        tokens = self.lead[1 - of_error] if per_token else self.spread
        rows = batch_first.reshape(len(batch_first), tokens, self.width)
        if not per_token:
            rows = rows.mean(dim=1, keepdim=len(self.lead) == 2)
        if self.summed:
            rows = rows.expand(-1, self.lead[1 - of_error], -1)
        return rows.movedim(0, of_error).reshape(-1, self.width)


def possible_axes(shape: tuple[int, ...], lead: tuple[int, ...]) -> list[Axes]:
    """Where the sizes let the batch be; an output of two axes is (batch, channel), longer ones may be (token, batch).

    Where two axes of length 1 stand side by side, it does not matter which of them is the batch.
    """
    of_block = 2 if len(shape) > 2 and shape[:2] != (1, 1) else 1
    places = product(range(1 if lead == (1, 1) else len(lead)), range(of_block if shape else 0))
    return [(error, block) for error, block in places if lead[error] == shape[block]]


def certain_axes(shape: tuple[int, ...], lead: tuple[int, ...], *, per_sample: bool = False) -> Axes | None:
    """Where the batch is, if the sizes admit nothing else that would give other signals; None otherwise.

    Sizes (B, T) in both, or (B, T) and (T, B), give the same signals whichever axis is the batch, unless rows are
    summed per sample. The batch second in a block alone is left to data flow.
    """
    possible = possible_axes(shape, lead)
    if len(shape) == 3 and not per_sample and possible in ([(0, 0), (1, 1)], [(0, 1), (1, 0)]):
        return possible[0]
    return (0, 0) if possible == [(0, 0)] else None


def place(shape: tuple[int, ...], lead: tuple[int, ...], axes: Axes, *, per_sample: bool = False) -> Placement:
    """Placement of error rows (leading shape (B,) or (B, T)) at a block output.

    | block output | rows (B,) | rows (B, T) |
    | --- | --- | --- |
    | (B, K) | one signal per sample | summed over T |
    | (B, T, K) | shared by the T tokens, 1/T each | one signal per token, unless `per_sample` |
    | (B, T', K) | shared by the T' tokens | summed over T, shared by the T' tokens |
    | (B, C, H, W), … | K = C·H·W, every unit its own | summed over T |

    Three axes are always read as (batch, token, channel), or as (token, batch, channel) where `axes` say so.
    """
    of_error, of_block = axes
    sequence = len(lead) == 2
    if len(shape) == 3:
        tokens = shape[1 - of_block]
        per_token = sequence and tokens == lead[1 - of_error] and not per_sample
        return Placement(shape, lead, axes, shape[2], sequence and not per_token, 1 if per_token else tokens)
    width = prod(size for axis, size in enumerate(shape) if axis != of_block)
    return Placement(shape, lead, axes, width, sequence, 1)


def misplaced(block: str, shape: tuple[int, ...], lead: tuple[int, ...], same_rows: str | None) -> MatchError:
    """The error for sizes that fit nowhere; `same_rows` names a later block whose output has as many rows."""
    read = f"read the error where rows are the same, error_at={same_rows!r}" if same_rows else "choose another error_at"
    return MatchError(
        f"block {block} returned shape {shape}, the error has leading shape {lead}: expected the error's batch as "
        "first axis, or as second behind tokens. Where rows are nodes, packed or flattened steps that are gathered "
        f"before the error, {read}, or choose blocks that return one row per sample or (batch, token, channel)"
    )


def undecided(block: str, shape: tuple[int, ...], lead: tuple[int, ...]) -> MatchError:
    """The error for sizes that fit in several ways, or in an unusual one, where data flow did not decide."""
    return MatchError(
        f"block {block} returned shape {shape}, the error has leading shape {lead}: which axis is the batch cannot be "
        "told; write RandomFeedback(batch_axes=(0, 0)) if it is the first of both, (0, 1) if it is the error's first "
        "and the block's second, (1, 1) if it is the second of both"
    )
