"""The aligned head: the head starts as the feedback matrix, so that feedback is right from the first step."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback
from odfa.engine.rules.head import FollowedHeadRule, Head
from odfa.engine.rules.started_head import StartedHead
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection


@dataclass(frozen=True, kw_only=True)
class AlignedHead(FollowedHeadRule, kind="aligned"):
    """W starts as a B^T; q = a B e + (low rank of W - a B^T)^T e enters at the head's input and goes to every block.

    q passes what lies between the last block and the head (final norm, pooling) by true gradient, and the result goes
    to every block of the residual stream, whose Jacobian is close to the identity. The low-rank part is electronic and
    sees the exact error; it is refitted to the head every `every` steps and counted in the status table. `rank=0`
    leaves it out; keep it at or under an eighth of the width. `drawn` entries of each row of the error meet all of
    W - a B^T, which estimates without bias what low rank leaves out. Attaching overwrites the head: load trained
    weights after attaching, not before.
    """

    label = "aligned head"
    colour = "#D55E00"

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """That of the projection, and the correction."""
        rank = self.rank_of(num_outputs=num_outputs, width=width)
        parts = self.corrected(rank)
        told = f"with an electronic correction {parts}" if parts else "no electronic correction (rank 0)"
        return self.with_hops(f"{projection}, {told}")

    def num_vectors(self, rows: int, *, num_outputs: int) -> int:
        """The start of the head, then every row of the error."""
        return num_outputs + rows

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Measure the matrix and set the head to it.

        Raises:
            ConfigError: the rank is out of range for this head.
        """
        return _Aligned(Head(projection, head, self), self)


class _Aligned(StartedHead[AlignedHead]):
    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        self.check_head()
        if self.steps and self.steps % self.rule.every == 0:
            self.low_rank.fit(self.head.drift_VK, self.steps)
        self.steps += 1
        drift_VK = self.head.drift_VK if self.rule.drawn else self.head.start_VK
        return [self.signal(error, self.rule.electronic_product(drift_VK, self.low_rank, self.steps))]

    @property
    def beside(self) -> str:
        """The low rank, and the draws."""
        drawn = f" and {self.rule.drawn} drawn entries of each sign" if self.rule.drawn else ""
        return f"rank {self.low_rank.rank}{drawn}"
