"""What the rules share that start a head from a projection's measured matrix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from odfa.draws import Draws
from odfa.engine.rules.base import AbstractRule
from odfa.engine.tensors import is_spread
from odfa.engine.wirings import AbstractWiring, Residual
from odfa.errors import ConfigError, MatchError
from odfa.feedback import LowRank, of_drawn
from odfa.flow import wide
from odfa.project import AbstractProjection
from odfa.settings import MAX_COUNT, MAX_WIDTH, SettingError, require

_STREAM = int.from_bytes(b"drawn")
_ROWS_AT_A_TIME = 256
"""One-hot rows that are projected at once: their patterns would take the square of a vocabulary."""


@dataclass(frozen=True, kw_only=True)
class HeadRule(AbstractRule):
    """The head's weight W starts as a B^T; one signal enters at the head's input and goes to every block."""

    scale: float = 0.25
    """a, in units where normalised inputs give logits of standard deviation a."""

    hops: int = 0
    """Hops of credit across the blocks (`wirings/crossing.py`): 0 sends every block the same signal, each hop adds one
    order of what later blocks make of a block's output, as many as there are blocks are backpropagation below the head.
    A hop is electronic: the input gradients of all blocks but the first, which may be computed at the same time."""
    hop_every: int = 1
    """n: hops are computed in the first of every n backward passes only, and what they add is multiplied by n there, so
    that its mean over n passes is that of hops in every pass."""

    wiring = Residual
    sets_head = True
    by_rows = True

    def __post_init__(self) -> None:
        require(self.scale > 0, "scale", "a positive number", self.scale)
        require(0 <= self.hops <= MAX_COUNT, "hops", f"0 to {MAX_COUNT:,}", self.hops)
        require(1 <= self.hop_every <= MAX_COUNT, "hop_every", f"1 to {MAX_COUNT:,} passes", self.hop_every)
        require(self.hops > 0 or self.hop_every == 1, "hop_every", "1, as hops=0 computes none", self.hop_every)

    @property
    def crossings(self) -> int:
        """Once for each hop."""
        return self.hops

    @property
    def crossed_every(self) -> int:
        """As the setting says."""
        return self.hop_every

    def hop_weight(self, answered: int) -> float:
        """What hops of the pass answered last are multiplied by: n in the first of n passes, 0 in the others."""
        return self.hop_every if (answered - 1) % self.hop_every == 0 else 0

    def new_wiring(self, last_block: str) -> AbstractWiring:
        """The residual stream, with the hops."""
        return Residual(self.name, last_block, hops=self.hops)

    def with_hops(self, electronic: str) -> str:
        """What is electronic, with the hops named."""
        if self.hops == 0:
            return electronic
        seldom = "" if self.hop_every == 1 else f" in one of {self.hop_every} backward passes, times {self.hop_every}"
        return f"{electronic}, and {self.hops} hop{'s' if self.hops > 1 else ''} of credit across the blocks{seldom}"

    def num_projected(self, widths: Sequence[int], *, head: int) -> int:
        """The width of the head's input, where the one signal enters."""
        return head

    def num_vectors(self, rows: int, *, num_outputs: int) -> int:
        """One for each output of the head, to measure the matrix that it starts from."""
        return num_outputs


@dataclass(frozen=True, kw_only=True)
class RankedHeadRule(HeadRule):
    """The same with an electronic part of low rank."""

    rank: int | None = None
    """Of the electronic part; None: an eighth of the head's smaller side."""

    lowest_rank: ClassVar[int] = 0
    """The least that leaves the rule something to learn by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rank is None or 0 <= self.rank <= MAX_WIDTH, "rank", f"0 to {MAX_WIDTH:,}", self.rank)

    def rank_of(self, *, num_outputs: int, width: int) -> int:
        """The rank on a head of this shape: as set, or an eighth of the smaller side."""
        return max(self.lowest_rank, min(num_outputs, width) // 8) if self.rank is None else self.rank

    def check(self, *, num_outputs: int, width: int) -> None:
        """The rank lies below the head's smaller side.

        Raises:
            SettingError: it does not.
        """
        rank, side = self.rank_of(num_outputs=num_outputs, width=width), min(num_outputs, width)
        if not self.lowest_rank <= rank < side:
            raise SettingError(
                "rank",
                f"rule={self.kind} on a head of {num_outputs} x {width} expects {self.lowest_rank} to {side - 1} "
                f"(from {side} it would be the exact product), got {rank}",
            )

    def electronic_share(self, rank: int, *, num_outputs: int, width: int) -> float:
        """Multiply-adds of the electronic part over those of the exact product of a row, V K."""
        return rank * (num_outputs + width) / (num_outputs * width)


@dataclass(frozen=True, kw_only=True)
class FollowedHeadRule(RankedHeadRule):
    """The same for a head that learns freely: what is electronic is fitted to it now and then."""

    every: int = 20
    """Backward passes between two fits of the electronic part to the head."""
    drawn: int = 0
    """Entries of each sign, drawn from each row of the error in proportion to their size, that meet the whole matrix:
    an unbiased estimate of what the low rank leaves out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.every >= 1, "every", "at least 1 step", self.every)
        require(self.every <= MAX_COUNT, "every", f"at most {MAX_COUNT:,} steps", self.every)
        require(0 <= self.drawn <= MAX_WIDTH, "drawn", f"0 to {MAX_WIDTH:,}", self.drawn)

    def corrected(self, rank: int) -> str:
        """What the electronic part consists of; nothing if the rank is 0 and no entry is drawn."""
        low = f"of rank {rank} every {self.every} steps" if rank else ""
        drawn = f"of {self.drawn} drawn entries of each sign" if self.drawn else ""
        return " and ".join(part for part in (low, drawn) if part)

    def electronic_share(self, rank: int, *, num_outputs: int, width: int) -> float:
        """Multiply-adds of the electronic part over those of the exact product of a row, V K."""
        drawn = 2 * self.drawn * (width + rank) / (num_outputs * width)
        return super().electronic_share(rank, num_outputs=num_outputs, width=width) + drawn

    def electronic_product(self, matrix_DK: Tensor, low_rank: LowRank, step: int) -> Callable[[Tensor], Tensor | None]:
        """What `low_rank`, fitted to a matrix, and the matrix at drawn entries make of rows of the error, which come in
        order, in whatever parts; the n-th step always draws from the same numbers."""
        numbers = Draws(_STREAM, self.drawn, step)

        def product(e_ND: Tensor) -> Tensor | None:
            nonlocal numbers
            q_NK = low_rank(e_ND)
            if not self.drawn:
                return q_NK
            rest_NK = of_drawn(wide(e_ND), self.drawn, matrix_DK, low_rank, numbers)
            numbers = numbers.behind(len(e_ND))
            return rest_NK if q_NK is None else q_NK + rest_NK

        return product


class Head:
    """The head's weight as W_VK, set to its start value a B^T in units where W^T e needs no further scale.

    start_VK = scale / sqrt(K) * B_VK, so that normalised inputs give logits of standard deviation `scale` at the start.
    """

    def __init__(self, projection: AbstractProjection, head: nn.Module, rule: HeadRule) -> None:
        """Measure the matrix and set the weight.

        Raises:
            ConfigError: the rule's settings do not fit this head.
        """
        self.module, self.transposed = head, type(head).__name__ == "Conv1D"
        num_outputs, width = self.matrix_VK.shape
        rule.check(num_outputs=num_outputs, width=width)
        self.projection = projection.shaped(num_outputs, width)
        self.gain = rule.scale / (1.0 if projection.isometric else width**0.5)
        self.start_VK = self.gain * measure(self.projection).to(self.matrix_VK)
        self.set(self.start_VK)

    @torch.no_grad()
    def set(self, matrix_VK: Tensor) -> None:
        """Overwrite the weight."""
        self.weight.copy_(self._as_weight(matrix_VK))

    @property
    def weight_VK(self) -> Tensor:
        """The weight as it is now, in its own type (looked up each time: loading weights may replace it)."""
        weight = self.weight.detach()
        return weight.T if self.transposed else weight

    @property
    def matrix_VK(self) -> Tensor:
        """The weight as it is now, in float32 or better."""
        return wide(self.weight_VK)

    @property
    def drift_VK(self) -> Tensor:
        """How far the weight has moved from its start."""
        return self.matrix_VK - self.start_VK.to(self.matrix_VK)

    @property
    def at_start(self) -> bool:
        """True if the head holds exactly its start values."""
        return torch.equal(self.weight.detach(), self._as_weight(self.start_VK))

    def _as_weight(self, matrix_VK: Tensor) -> Tensor:
        return (matrix_VK.T if self.transposed else matrix_VK).to(self.weight)

    @property
    def weight(self) -> Tensor:
        """The parameter, outputs x inputs or the reverse, looked up each time."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight


def measure(projection: AbstractProjection) -> Tensor:
    """B_VK row by row: read where the projection can tell, otherwise measured by projecting one-hot rows."""
    assert projection.num_inputs is not None
    try:
        return projection.matrix()
    except ConfigError:
        places = torch.split(torch.arange(projection.num_inputs), _ROWS_AT_A_TIME)
        one_hot = torch.nn.functional.one_hot
        return torch.cat([projection.project(one_hot(place_n, projection.num_inputs).float()) for place_n in places])


def check_head(model: nn.Module, head: nn.Module, *, overwrite: bool) -> None:
    """Refuse heads that a rule must not set to a start value.

    Raises:
        MatchError: the head has no weight matrix of its own, or holds weights that look trained without `overwrite`.
    """
    weight = getattr(head, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 2:
        raise MatchError(
            f"this rule needs a head with a weight matrix, got {type(head).__name__}; use RandomFeedback()"
        )
    if is_spread(weight):
        raise MatchError(
            "this rule needs the head's whole weight, got a DTensor, which is spread over processes; use "
            "RandomFeedback()"
        )
    holders = [m for m in model.modules() if any(p is weight for p in m.parameters(recurse=False))]
    if len(holders) > 1:
        raise MatchError(
            "the head shares its weight with another module (tied embeddings), which would be overwritten too; "
            "build the model untied (tie_word_embeddings=False) or use RandomFeedback()"
        )
    if not overwrite:
        _refuse_trained(model, head)


def _refuse_trained(model: nn.Module, head: nn.Module) -> None:
    """Weights that no usual initialisation makes have been trained, and setting them to a start value loses that.

    Fresh are constants, torch's uniform start |w| <= 1/sqrt(K), and independent entries of a usual standard deviation:
    the largest singular value of those stays close to sigma (sqrt(V) + sqrt(K)) (Marchenko and Pastur).
    """
    weight: Tensor = head.weight.detach()  # type: ignore[operator]
    if weight.is_meta or not weight.numel() or bool((weight == weight.flatten()[0]).all()):
        return
    weight_VK = (weight.T if type(head).__name__ == "Conv1D" else weight).float()
    num_outputs, width = weight_VK.shape
    if weight_VK.abs().max().item() <= width**-0.5 * (1 + 1e-3):
        return
    sigma = weight_VK.square().mean().sqrt().item()
    declared = getattr(getattr(model, "config", None), "initializer_range", 0.02)
    usual = (declared, 0.02, (2 / (num_outputs + width)) ** 0.5, (2 / width) ** 0.5, (1 / width) ** 0.5)
    expected = any(abs(sigma / one - 1) < 0.15 for one in usual if isinstance(one, float))
    if expected and _largest_singular(weight_VK) < sigma * (num_outputs**0.5 + width**0.5 + 1.5):
        return
    raise MatchError(
        "the head holds weights that look trained, and this rule sets them to a start value when it is attached; say "
        "DFA(…, overwrite_head=True) to lose them, or use RandomFeedback(), which leaves the head as it is"
    )


def _largest_singular(matrix_VK: Tensor) -> float:
    """By power iteration: never above the true one."""
    v_K = torch.linspace(1, 2, matrix_VK.shape[1], device=matrix_VK.device).sin()
    for _ in range(30):
        v_K = torch.nn.functional.normalize(matrix_VK.T @ (matrix_VK @ v_K), dim=0)
    return float(torch.linalg.vector_norm(matrix_VK @ v_K))
