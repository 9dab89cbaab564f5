"""Direct feedback alignment: a slice of the projected error at every block's output."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from torch import Tensor, nn

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback, AbstractRule
from odfa.engine.wirings import Direct
from odfa.errors import MatchError
from odfa.feedback import Axes, Slots
from odfa.feedback.patterns import matches
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state
from odfa.settings import SettingError, require, shown


@dataclass(frozen=True, kw_only=True)
class RandomFeedback(AbstractRule, kind="random"):
    """The paper's rule: s_l = scale / sqrt(K_l) * B_l e at the output of block l, B_l fixed and random.

    Source: Nøkland, arXiv 1609.01596; by light, arXiv 2409.12965.
    """

    shared: bool = False
    """One slice B for all blocks instead of one slice each; needs fewer optical modes, and less work where the
    projection is digital and the error wide."""
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
    label = "random feedback"
    colour = "#0072B2"

    def __post_init__(self) -> None:
        require(self.scale > 0, "scale", "a positive number", self.scale)
        pairs = (None, *product((0, 1), repeat=2))
        require(self.batch_axes in pairs, "batch_axes", "None or a pair such as (0, 1)", self.batch_axes)

    def num_projected(self, widths: Sequence[int], *, head: int) -> int:
        """A slice for each block, or one that the widest can use."""
        return max(widths) if self.shared else sum(widths)

    def check_blocks(self, blocks: Sequence[str]) -> None:
        """Every pattern of `per_sample` describes a block.

        Raises:
            SettingError: one describes none.
        """
        for pattern in self.per_sample:
            if not any(matches(pattern, block) for block in blocks):
                told = f"{blocks[0]} … {blocks[-1]}" if len(blocks) > 2 else " and ".join(blocks)
                raise SettingError("per_sample", f"expected patterns of the blocks {told}, got {shown(pattern)}")

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Slices are given out when the blocks first run."""
        return _Slices(projection, self)


class _Slices(AbstractFeedback):
    projection: AbstractProjection

    def __init__(self, projection: AbstractProjection, rule: RandomFeedback) -> None:
        self.projection = projection
        self.slots = Slots(shared=rule.shared, per_sample=rule.per_sample, batch_axes=rule.batch_axes)
        self.scale = rule.scale

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        if calls and self.slots.batch_axes is not None and len(error.lead) == 1 and _flat(calls):
            raise MatchError(
                f"batch_axes={self.slots.batch_axes}: expected a block output of three or more axes, or errors per "
                f"token, got {calls[0].shape} and errors {error.lead}, whose batch is the first axis; leave it out"
            )
        # slices are given out before anything is projected, as the projection is as wide as all of them together
        places = [
            self.slots.take(
                call.block, call.shape, error.lead, found=call.axes, same_rows=_last_with_rows_of(call, calls)
            )
            for call in calls
        ]
        if not calls:
            return []
        p_NM = self._fit(error.e_ND.shape[1]).project(error.e_ND)
        isometric = self.projection.isometric
        return [
            placed.signal(p_NM[:, cut], self.scale / (1.0 if isometric else placed.width**0.5))
            for cut, placed in places
        ]

    def doubts(self, block: str, shape: tuple[int, ...], lead: tuple[int, ...] | None) -> bool:
        """Whether sizes leave open where the batch lies."""
        return self.slots.doubts(block, shape, lead)

    def _fit(self, num_inputs: int) -> AbstractProjection:
        known = self.projection.num_inputs
        if known is not None and known != num_inputs:
            raise MatchError(f"the error was {known} wide before and is {num_inputs} now; keep the output size fixed")
        if (self.projection.num_inputs, self.projection.num_outputs) != (num_inputs, self.slots.total):
            self.projection = self.projection.shaped(num_inputs, self.slots.total)
        return self.projection

    @property
    def description(self) -> str:
        """The projection, and how it is split."""
        return f"{self.projection.identity}, {'one shared slice' if self.slots.shared else 'a slice for each block'}"

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
            self._fit(state["num_inputs"])


def _flat(calls: Sequence[Call]) -> bool:
    return all(len(call.shape) < 3 for call in calls)


def _last_with_rows_of(call: Call, calls: Sequence[Call]) -> str | None:
    """The last block, if it is another one and returned as many rows: the error can be read there."""
    last = calls[-1]
    return last.block if last.block != call.block and last.shape[:1] == call.shape[:1] else None
