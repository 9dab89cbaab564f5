"""Direct random target projection: blocks learn from the labels, before any output is known."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from odfa.engine.rules.base import AbstractFeedback, Need
from odfa.engine.rules.placed import SlicedRule, Slices, refuse_nonfinite
from odfa.errors import MatchError
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import shown

_IGNORED = -100
"""Label of rows that the loss leaves out."""


@dataclass(frozen=True, kw_only=True)
class Drtp(SlicedRule, kind="drtp"):
    """Direct random target projection: s_l = -scale / (N sqrt(K_l)) * B_l y, y the one-hot label, N labelled rows.

    -y / N is the error of a mean cross-entropy, (p - y) / N, without the outputs p: no block waits for them. The error
    trains the head alone. A factor of the loss does not reach the blocks: of n backward passes before one step of the
    optimiser, each counts as a whole batch.

    Source: Frenkel, Lefebvre & Bol, Frontiers in Neuroscience 15 (2021), 629892.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"targets"})
    label = "random target projection"
    colour = "#E69F00"

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """That of the projection, and what is projected."""
        return f"{projection}; the labels are projected, not the error"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Slices are given out when the blocks first run."""
        return _Targets(projection, self)


class _Targets(Slices):
    takes_half = False

    def projected(self, error: ErrorSignal, projection: AbstractProjection) -> Tensor:
        return projection.project(self.rows(error))

    def rows(self, error: ErrorSignal) -> Tensor:
        refuse_nonfinite(error)  # the head learns from it in the same backward pass
        labels_N, width = error.targets, error.e_ND.shape[1]
        if labels_N.ndim != 1 or labels_N.is_floating_point() or labels_N.is_complex():
            raise MatchError(
                f"rule drtp: expected one label for each of the {len(error.e_ND)} rows of the error, got "
                f"{shown(labels_N)}; use rule=random for values"
            )
        labels_N = labels_N.to(error.e_ND.device)
        labelled_N = labels_N != _IGNORED
        known_n = labels_N[labelled_N].long()
        if known_n.numel() and not bool(((known_n >= 0) & (known_n < width)).all()):
            low, high = known_n.min().item(), known_n.max().item()
            raise MatchError(
                f"rule drtp: expected labels from 0 to {width - 1}, as the error is {width} wide, or {_IGNORED} for "
                f"rows that the loss leaves out, got {low} to {high}; read the error at the labels' outputs"
            )
        rows_ND = torch.zeros_like(error.e_ND)
        rows_ND[labelled_N.nonzero()[:, 0], known_n] = -1 / max(1, len(known_n))
        return rows_ND

    @property
    def description(self) -> str:
        """The projection, how it is split, and what is projected."""
        return f"{super().description}, of the labels"
