"""The aligned head that learns within low rank of its start, so that its electronic correction leaves nothing out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback, Need
from odfa.engine.rules.head import Head, RankedHeadRule
from odfa.engine.rules.started_head import StartedHead
from odfa.errors import MatchError
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection


@dataclass(frozen=True, kw_only=True)
class LowRankHead(RankedHeadRule, kind="low_rank"):
    """W = a B^T + U V, with U V of rank r: q = a B e + (U V)^T e is W^T e, and enters as that of `AlignedHead`.

    After every optimiser step W - a B^T is replaced by its best approximation of rank r, so the head learns in the
    directions in which it learns most, and the blocks learn the rest. `rank=0` keeps the head at its start: then the
    light is all of the feedback. Worth it where a fixed head could do, such as one of fewer outputs than inputs; a
    vocabulary wants all of the head. Of several optimisers that of the head has to step first.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"error", "optimiser step"})
    label = "low-rank head"
    colour = "#B8860B"

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """That of the projection, and the low rank that the head has learned."""
        rank = self.rank_of(num_outputs=num_outputs, width=width)
        told = f"with rank {rank} that the head learns within" if rank else "the head stays at its start (rank 0)"
        return self.with_hops(f"{projection}, {told}")

    def num_vectors(self, rows: int, *, num_outputs: int) -> int:
        """The start of the head, then every row of the error."""
        return num_outputs + rows

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Measure the matrix and set the head to it.

        Raises:
            ConfigError: the rank is out of range for this head.
        """
        return _LowRank(Head(projection, head, self), self)


class _LowRank(StartedHead[LowRankHead]):
    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        self.check_head()
        self.steps += 1
        return [self.signal(error, self.low_rank)]

    def stepped(self, optimizer: Optimizer) -> None:
        moved = any(p is self.head.weight for group in optimizer.param_groups for p in group["params"])
        if self.head.weight.requires_grad and not moved:
            raise MatchError(
                "rule low_rank expects the head's weight in the optimiser that steps first, got one without it; step "
                "the head's optimiser first, or freeze the head by requires_grad_(False)"
            )
        self.low_rank.fit(self.head.drift_VK, self.steps)
        learned_VK = self.low_rank.product_DK
        self.head.set(self.head.start_VK if learned_VK is None else self.head.start_VK + learned_VK)

    @property
    def beside(self) -> str:
        """The low rank."""
        return f"rank {self.low_rank.rank} that the head learns within"
