"""What is timed on which device: small networks on a processor, on an accelerator those that it is busy with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from odfa.scaling.family import Gpt
from odfa.scaling.measure import CHECKED, FITTED, PEAKED, PROJECTED


@dataclass(frozen=True, kw_only=True)
class TimedShapes:
    """Networks and projections of one measurement."""

    fitted: Sequence[Gpt]
    """Networks whose steps the constants are fitted to."""
    checked: Sequence[Gpt]
    """Networks whose steps the predictions are compared with; none of them is fitted."""
    peaked: Sequence[Gpt]
    """Networks whose peak memory is measured."""
    projected: Sequence[tuple[int, int, int]]
    """Rows, inputs and outputs of the projections that are timed."""


_PROCESSOR = TimedShapes(fitted=FITTED, checked=CHECKED, peaked=PEAKED, projected=PROJECTED)
_CHECKED_THERE = (
    *(Gpt(depth=12, width=256, tokens=4096), Gpt(depth=6, width=384, tokens=8192)),
    *(Gpt(depth=12, width=512, tokens=2048), Gpt(depth=24, width=512, tokens=4096)),
    *(Gpt(depth=3, width=768, tokens=8192), Gpt(depth=12, width=768, tokens=4096)),
    *(Gpt(depth=6, width=1024, tokens=4096), Gpt(depth=12, width=1024, tokens=2048)),
    *(Gpt(depth=3, width=1536, tokens=8192), Gpt(depth=6, width=2048, tokens=2048)),
)
_ACCELERATOR = TimedShapes(
    fitted=(
        *(Gpt(depth=2, width=256, tokens=2048), Gpt(depth=8, width=256, tokens=8192)),
        *(Gpt(depth=2, width=512, tokens=4096), Gpt(depth=8, width=512, tokens=4096)),
        *(Gpt(depth=4, width=1024, tokens=2048), Gpt(depth=2, width=1024, tokens=8192)),
        *(Gpt(depth=8, width=1024, tokens=8192), Gpt(depth=2, width=2048, tokens=4096)),
        Gpt(depth=4, width=2048, tokens=8192),
    ),
    checked=_CHECKED_THERE,
    peaked=_CHECKED_THERE,
    projected=(
        *((1024, 2048, 256), (2048, 2048, 512), (4096, 2048, 2048), (8192, 2048, 1024)),
        *((2048, 512, 512), (4096, 512, 64), (8192, 1024, 1024)),
    ),
)


def timed_on(device: torch.device) -> TimedShapes:
    """What is timed on this device."""
    return _PROCESSOR if device.type == "cpu" else _ACCELERATOR
