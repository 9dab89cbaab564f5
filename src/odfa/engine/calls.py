"""What is known of a block that ran in a forward pass."""

from dataclasses import dataclass

import torch

from odfa.feedback import Axes


@dataclass(frozen=True)
class Call:
    """One call of one block in one forward pass.

    `deferred` calls ran without a graph, inside reentrant activation checkpointing or in the first run of
    `recompute="stream"`; their signal enters when the block runs again. `axes` is where data flow showed the batch, if
    the rule's feedback asked for it.
    """

    block: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    deferred: bool
    axes: Axes | None = None
