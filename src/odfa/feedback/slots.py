"""Which outputs of the projection belong to which block, and how the block is fed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from odfa.errors import CheckpointError, MatchError
from odfa.feedback.patterns import matches
from odfa.feedback.placement import Axes, Placement, certain_axes, misplaced, place, possible_axes, undecided
from odfa.saved import check_state, word

_MOST = 9
"""The largest flags that `_flags` gives."""


@dataclass(frozen=True)
class Slot:
    """A block's outputs of the projection, and what was settled when it first ran."""

    start: int
    width: int
    summed: bool
    axes: Axes | None
    """None while batch and tokens were one each, so that nothing told them apart."""


class Slots:
    """Gives each block its slice of the projection's outputs, in the order in which blocks are first seen.

    With `shared` every block takes the first K outputs of one slice. Slices never move once given, and projections are
    prefix-stable, so a block that appears late leaves the others' feedback as it was. Whether a block is fed per token
    or per sample, and where its batch lies, is settled when it is first seen too; blocks matched by `per_sample` never
    are per token. `batch_axes` says where the batch lies in blocks of three and more axes.
    """

    def __init__(self, *, shared: bool, per_sample: Sequence[str] = (), batch_axes: Axes | None = None) -> None:
        self.shared, self.per_sample, self.batch_axes = shared, tuple(per_sample), batch_axes
        self.slices: dict[str, Slot] = {}

    @property
    def total(self) -> int:
        """M, outputs needed so far."""
        return max((slot.start + slot.width for slot in self.slices.values()), default=0)

    def axes(self, block: str, shape: tuple[int, ...], lead: tuple[int, ...]) -> Axes | None:
        """Where the batch lies in the error and in an output of `block`; None if sizes do not tell."""
        if block in self.slices and (settled := self.slices[block].axes) is not None:
            return settled
        if self.batch_axes is not None:
            of_error, of_block = self.batch_axes
            return min(of_error, len(lead) - 1), of_block if len(shape) > 2 else 0
        return certain_axes(shape, lead, per_sample=self._pooled(block))

    def doubts(self, block: str, shape: tuple[int, ...], lead: tuple[int, ...] | None) -> bool:
        """Whether sizes leave open where the batch lies; without `lead`, whether they might."""
        if lead is None:
            return self.batch_axes is None and (block not in self.slices or self.slices[block].axes is None)
        return self.axes(block, shape, lead) is None

    def take(
        self,
        block: str,
        shape: tuple[int, ...],
        lead: tuple[int, ...],
        *,
        found: Axes | None = None,
        same_rows: str | None = None,
    ) -> tuple[slice, Placement]:
        """Slice of `block`, whose output has `shape`, and how error rows of leading shape `lead` are placed there.

        `found` is where data flow showed the batch, asked for where sizes do not tell; `same_rows` names another block
        with as many rows, for the message.

        Raises:
            MatchError: no axis, or no certain one, is the batch; the block's width changed; or it was fed per token and
                now has other tokens than the error.
        """
        # Everything is checked before the slice is entered: a refused block leaves the others' slices as they were.
        axes = self.axes(block, shape, lead) or found
        possible = possible_axes(shape, lead)
        if not possible:
            raise misplaced(block, shape, lead, same_rows)
        if axes is not None and lead[axes[0]] != shape[axes[1]]:
            raise MatchError(
                f"axis {axes[0]} of the error {lead} and axis {axes[1]} of block {block}'s output {shape} are the "
                "batch, by what ran before or by batch_axes=, but differ; keep one layout, or leave batch_axes out"
            )
        if axes is None:
            raise undecided(block, shape, lead)
        known = self.slices.get(block)
        placed = place(shape, lead, axes, per_sample=self._pooled(block) or (known is not None and known.summed))
        if known is None:
            known = Slot(0 if self.shared else self.total, placed.width, placed.summed, None)
        if known.width != placed.width:
            raise MatchError(
                f"block {block} needed {known.width} feedback values before and {placed.width} now: its output changed "
                "size, so a fixed projection cannot serve it; keep the input size fixed"
            )
        if placed.summed and not known.summed:
            raise MatchError(
                f"block {block} had the error's tokens before and now has {shape[1 - axes[1]]} for the error's "
                f"{lead[1 - axes[0]]}: they are not the same tokens; feed it per sample, "
                f"RandomFeedback(per_sample=[{block!r}])"
            )
        if known.axes is None and (1, 1) not in (shape[:2], lead):
            known = replace(known, axes=axes)
        self.slices[block] = known
        return slice(known.start, known.start + known.width), placed

    def _pooled(self, block: str) -> bool:
        return any(matches(pattern, block) for pattern in self.per_sample)

    def state_dict(self) -> dict[str, list[int]]:
        """Block name → [start, width, flags]; see `_flags`."""
        return {name: [slot.start, slot.width, _flags(slot)] for name, slot in self.slices.items()}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Take over the slices of `state`.

        Raises:
            CheckpointError: these are no slices, or they do not follow one another.
        """
        check_state(state, {str: [int, int, int]}, "slots")
        # slices must lie side by side, for that is what numbers the outputs of the projection
        end = 0
        for name, (start, width, flags) in sorted(state.items(), key=lambda item: item[1]):
            if start != end or not width or flags > _MOST:
                raise CheckpointError(
                    f"the saved state does not fit: slots.{word(name)}: expected a slice from {end} on"
                )
            end = 0 if self.shared else start + width
        self.slices = {name: _slot(*numbers) for name, numbers in state.items()}


def _flags(slot: Slot) -> int:
    """1: fed per sample; 2, 4: the batch is the second axis of the error, of the block; 8: not settled yet."""
    axes = 8 if slot.axes is None else 2 * slot.axes[0] + 4 * slot.axes[1]
    return slot.summed + axes


def _slot(start: int, width: int, flags: int) -> Slot:
    return Slot(start, width, bool(flags & 1), None if flags & 8 else (flags >> 1 & 1, flags >> 2 & 1))
