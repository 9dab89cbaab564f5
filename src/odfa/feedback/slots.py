"""Which outputs of the projection belong to which block, and how the block is fed."""

from collections.abc import Sequence

from odfa.errors import CheckpointError, MatchError
from odfa.feedback.patterns import matches
from odfa.feedback.placement import Placement, place
from odfa.saved import check_state, word


class Slots:
    """Gives each block its slice of the projection's outputs, in the order in which blocks are first seen.

    With `shared` every block takes the first K outputs of one slice. Slices never move once given, and projections are
    prefix-stable, so a block that appears late leaves the others' feedback as it was. Whether a block is fed per token
    or per sample is settled when it is first seen too; blocks matched by `per_sample` never are per token.
    """

    def __init__(self, *, shared: bool, per_sample: Sequence[str] = ()) -> None:
        self.shared, self.per_sample = shared, tuple(per_sample)
        self.slices: dict[str, tuple[int, int, bool]] = {}

    @property
    def total(self) -> int:
        """M, outputs needed so far."""
        return max((start + width for start, width, _ in self.slices.values()), default=0)

    def take(self, block: str, shape: tuple[int, ...], lead: tuple[int, ...]) -> tuple[slice, Placement]:
        """Slice of `block`, whose output has `shape`, and how error rows of leading shape `lead` are placed there.

        Raises:
            MatchError: the block's width changed, or it was fed per token and now has other tokens than the error.
        """
        pooled = any(matches(pattern, block) for pattern in self.per_sample)
        known = self.slices.get(block)
        placed = place(shape, lead, block, per_sample=pooled or (known is not None and known[2]))
        if known is None:
            known = (0 if self.shared else self.total, placed.width, placed.summed)
            self.slices[block] = known
        start, width, summed = known
        if width != placed.width:
            raise MatchError(
                f"block {block} needed {width} feedback values before and {placed.width} now: its output changed size, "
                "so a fixed projection cannot serve it; keep the input size fixed"
            )
        if placed.summed and not summed:
            raise MatchError(
                f"block {block} had the error's tokens before and now has {shape[1]} for the error's {lead[1:]}: they "
                f"are not the same tokens; feed it per sample, RandomFeedback(per_sample=[{block!r}])"
            )
        return slice(start, start + width), placed

    def state_dict(self) -> dict[str, list[int]]:
        """Block name → [start, width, 1 if fed per sample]."""
        return {name: [start, width, int(summed)] for name, (start, width, summed) in self.slices.items()}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Take over the slices of `state`.

        Raises:
            CheckpointError: these are no slices, or they do not follow one another.
        """
        check_state(state, {str: [int, int, int]}, "slots")
        end = 0
        for name, (start, width, summed) in sorted(state.items(), key=lambda item: item[1]):
            if start != end or not width or summed > 1:
                raise CheckpointError(
                    f"the saved state does not fit: slots.{word(name)}: expected a slice from {end} on"
                )
            end = 0 if self.shared else start + width
        self.slices = {name: (start, width, bool(summed)) for name, (start, width, summed) in state.items()}
