"""What the rules share that give every block a signal of its own: places of the rows, and a slice of the projection."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback, AbstractRule
from odfa.engine.wirings import Direct
from odfa.errors import MatchError, NonFinite
from odfa.feedback import Axes, Placement, Slots, projected
from odfa.feedback.patterns import matches
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state, finite
from odfa.settings import SettingError, require, shown


@dataclass(frozen=True, kw_only=True)
class PlacedRule(AbstractRule):
    """Each block gets K_l values for every row of the error, which are placed at its output."""

    scale: float = 1.0
    """With entries of variance 1 and the factor 1/sqrt(K), |s_l| ≈ scale * |e| at any width."""
    per_sample: tuple[str, ...] = ()
    """Patterns of blocks that are fed per sample although the error comes per token, because their tokens are not the
    error's (an encoder's beside a decoder's)."""
    batch_axes: Axes | None = field(default=None, repr=False)  # what came of it is in the state of the slices
    """Which axis is the batch, of the error and of the blocks' outputs of three and more axes: (0, 0) is batch first,
    (0, 1) where blocks see (T, B, C) and the model returns (B, T, D) or (B, D). None finds it: by sizes, and where
    these do not tell (B = T), by what a sample's output depends on in the first forward pass, which then keeps the
    graphs of all blocks."""

    wiring = Direct

    def __post_init__(self) -> None:
        require(self.scale > 0, "scale", "a positive number", self.scale)
        pairs = (None, *product((0, 1), repeat=2))
        require(self.batch_axes in pairs, "batch_axes", "None or a pair such as (0, 1)", self.batch_axes)

    def check_blocks(self, blocks: Sequence[str]) -> None:
        """Every pattern of `per_sample` describes a block.

        Raises:
            SettingError: one describes none.
        """
        for pattern in self.per_sample:
            if not any(matches(pattern, block) for block in blocks):
                told = f"{blocks[0]} … {blocks[-1]}" if len(blocks) > 2 else " and ".join(blocks)
                raise SettingError("per_sample", f"expected patterns of the blocks {told}, got {shown(pattern)}")


@dataclass(frozen=True, kw_only=True)
class SlicedRule(PlacedRule):
    """The values are a slice of a fixed projection."""

    shared: bool = False
    """One slice B for all blocks instead of one slice each; needs fewer optical modes, and less work where the
    projection is digital and the error wide."""

    def num_projected(self, widths: Sequence[int], *, head: int) -> int:
        """A slice for each block, or one that the widest can use."""
        return max(widths) if self.shared else sum(widths)

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Slices are given out when the blocks first run."""
        return Slices(projection, self)


class Places(AbstractFeedback):
    """Where the rows of the error go, block by block; a projection that is as wide as all blocks together."""

    projection: AbstractProjection

    def __init__(self, projection: AbstractProjection, rule: PlacedRule, *, shared: bool) -> None:
        self.projection = projection
        self.slots = Slots(shared=shared, per_sample=rule.per_sample, batch_axes=rule.batch_axes)
        self.scale = rule.scale

    def places(self, error: ErrorSignal, calls: Sequence[Call]) -> list[tuple[slice, Placement]]:
        """Of each call, its outputs of the projection and how rows are placed at the block's output.

        Raises:
            MatchError: the sizes do not tell, or are other ones than before.
        """
        if calls and self.slots.batch_axes is not None and len(error.lead) == 1 and _flat(calls):
            raise MatchError(
                f"batch_axes={self.slots.batch_axes}: expected a block output of three or more axes, or errors per "
                f"token, got {calls[0].shape} and errors {error.lead}, whose batch is the first axis; leave it out"
            )
        # slices are given out before anything is projected, as the projection is as wide as all of them together
        return [
            self.slots.take(
                call.block, call.shape, error.lead, found=call.axes, same_rows=_last_with_rows_of(call, calls)
            )
            for call in calls
        ]

    def gain(self, placed: Placement) -> float:
        """What a block's outputs of the projection are multiplied by: scale / sqrt(K)."""
        return self.scale / (1.0 if self.projection.isometric else placed.width**0.5)

    def fit(self, num_inputs: int) -> AbstractProjection:
        """The projection of rows of this width to all slices.

        Raises:
            MatchError: rows had another width before.
        """
        known = self.projection.num_inputs
        if known is not None and known != num_inputs:
            raise MatchError(f"the error was {known} wide before and is {num_inputs} now; keep the output size fixed")
        if (self.projection.num_inputs, self.projection.num_outputs) != (num_inputs, self.slots.total):
            self.projection = self.projection.shaped(num_inputs, self.slots.total)
        return self.projection

    def doubts(self, block: str, shape: tuple[int, ...], lead: tuple[int, ...] | None) -> bool:
        """Whether sizes leave open where the batch lies."""
        return self.slots.doubts(block, shape, lead)

    def state_dict(self) -> dict[str, Any]:
        """Slices given out, and the width of the error."""
        return {"slots": self.slots.state_dict(), "num_inputs": self.projection.num_inputs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the slices and shape the projection to them.

        Raises:
            CheckpointError: this is not the state of such a rule.
        """
        width = int if state.get("slots") else (None, int)
        check_state(state, {"slots": {str: object}, "num_inputs": width}, "feedback")
        self.slots.load_state_dict(state["slots"])
        if state["num_inputs"] is not None and self.slots.total:
            self.fit(state["num_inputs"])


class Slices(Places):
    """s_l = gain * B_l r for rows r that are made of the error: the error itself, unless a subclass says otherwise."""

    takes_half = True

    def __init__(self, projection: AbstractProjection, rule: SlicedRule) -> None:
        super().__init__(projection, rule, shared=rule.shared)

    def projected(self, error: ErrorSignal, projection: AbstractProjection) -> Tensor:
        """B r for all blocks, one row per row of the error; r is as wide as the error."""
        return error.each(lambda e_ND: projected(projection, e_ND))

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        """A slice of the projected rows at each block's output."""
        places = self.places(error, calls)
        if not calls:
            return []
        p_NM = self.projected(error, self.fit(error.like.shape[1]))
        return [placed.signal(p_NM[:, cut], self.gain(placed)) for cut, placed in places]

    @property
    def description(self) -> str:
        """The projection, and how it is split."""
        return f"{self.projection.identity}, {'one shared slice' if self.slots.shared else 'a slice for each block'}"


def refuse_nonfinite(error: ErrorSignal) -> None:
    """For rules that do not project the error, which would find it.

    Raises:
        NonFinite: the error contains NaN or infinity.
    """
    if not finite(error.e_ND):
        raise NonFinite("the output error contains NaN or infinity; lower the learning rate or look at the batch")


def _flat(calls: Sequence[Call]) -> bool:
    return all(len(call.shape) < 3 for call in calls)


def _last_with_rows_of(call: Call, calls: Sequence[Call]) -> str | None:
    """The last block, if it is another one and returned as many rows: the error can be read there."""
    last = calls[-1]
    return last.block if last.block != call.block and last.shape[:1] == call.shape[:1] else None
