"""Which outputs of the projection belong to which block."""

from odfa.errors import CheckpointError, MatchError


class Slots:
    """Gives each block its slice of the projection's outputs, in the order in which blocks are first seen.

    With `shared` every block takes the first K outputs of one slice. Slices never move once given, and projections are
    prefix-stable, so a block that appears late leaves the others' feedback as it was.
    """

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared
        self.slices: dict[str, tuple[int, int]] = {}

    @property
    def total(self) -> int:
        """M, outputs needed so far."""
        return max((start + width for start, width in self.slices.values()), default=0)

    def take(self, block: str, width: int) -> slice:
        """Slice of `block`, which needs `width` outputs.

        Raises:
            MatchError: the block's width changed since it was first seen.
        """
        start, known = self.slices.setdefault(block, (0 if self.shared else self.total, width))
        if known != width:
            raise MatchError(
                f"block {block} needed {known} feedback values before and {width} now: its output changed size, "
                "so a fixed projection cannot serve it; keep the input size fixed"
            )
        return slice(start, start + width)

    def state_dict(self) -> dict[str, list[int]]:
        """Block name → [start, width]."""
        return {name: list(pair) for name, pair in self.slices.items()}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restore slices.

        Raises:
            CheckpointError: a block already has another slice.
        """
        for name, (start, width) in state.items():
            if self.slices.get(name, (start, width)) != (start, width):
                raise CheckpointError(
                    f"block {name} has slice {self.slices[name]}, the checkpoint says {(start, width)}"
                )
            self.slices[name] = (start, width)
