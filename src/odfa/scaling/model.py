"""From a recipe, a module or a GPT's sizes to a model of cost: walks of every way to train, on a processor's rates."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from torch import Tensor, nn

from odfa.arms import BACKPROP, DEFAULT_ARM, arm
from odfa.data import DataShape
from odfa.engine.blocks import Blocks
from odfa.errors import ConfigError, MatchError
from odfa.scaling.assumptions import plannable
from odfa.scaling.cost import Model, WalkKey, pace
from odfa.scaling.family import Gpt
from odfa.scaling.processor import Processor
from odfa.scaling.walk import Walk, walk_module, walk_run, widened
from odfa.session import AdamSettings, MemorySettings, RunConfig
from odfa.session.config import Granularity

KEYS: tuple[WalkKey, ...] = (("bp", "keep"), ("bp", "recompute"), ("feedback", "keep"), ("feedback", "stream"))
"""Ways to learn and to keep activations that the methods are made of."""
_ARMS = {"bp": BACKPROP, "feedback": DEFAULT_ARM}
"""The arm that each way to learn is walked with."""
_WIDTHS = (256, 2048, 16384)
"""Widths of the siblings that a GPT's cost is worked out from."""


def model_of(walks: dict[WalkKey, Walk], processor: Processor, sequences: float, *, rows: float | None = None) -> Model:
    """The cost model of a network from its walks, with the rates of a processor and the sequences of a step.

    Args:
        rows: of the output error in a step; None: as many as feedback projects.
    """
    projected = walks["feedback", "keep"].rows
    rows = projected if rows is None else rows
    paces = {key: pace(walk, processor) for key, walk in walks.items()}
    return Model(
        paces=paces,
        processor=processor,
        tokens=rows,
        sequences=min(rows, sequences),
        vectors_per_row=projected / rows,
    )


def walks_of_run(config: RunConfig, shape: DataShape, precision: str) -> dict[WalkKey, Walk]:
    """Every walk of a run's network that it can do; running blocks again is left out where it cannot.

    Raises:
        ConfigError, MatchError: the config does not fit its data, or its network cannot be walked.
    """
    walks = {}
    for key in KEYS:
        try:
            walks[key] = walk_run(_variant(config, key, precision), shape)
        except (ConfigError, MatchError):
            if key[1] == "keep":
                raise
    return walks


def _variant(config: RunConfig, key: WalkKey, precision: str) -> RunConfig:
    learning, activations = key
    memory = MemorySettings(
        activations=activations,
        fused=activations == "stream",
        precision="float32" if precision == "float32" else "bfloat16",
        head_rows=config.memory.head_rows,
    )
    run = arm(config, _ARMS[learning])
    # nothing is computed: neither the device nor a compiler has to be here
    run = replace(run, device="cpu", compile=False)
    return replace(run, rule=plannable(run.rule), optimizer=AdamSettings(), memory=memory)


def walks_of_module(module: nn.Module, inputs: Sequence[Tensor], blocks: Blocks = None) -> dict[WalkKey, Walk]:
    """Every walk of any module: backpropagation and feedback with everything kept, and feedback with blocks run again
    where its blocks allow that.

    Raises:
        MatchError: it cannot run on sizes alone, or has no blocks.
    """
    walks: dict[WalkKey, Walk] = {
        ("bp", "keep"): walk_module(module, inputs, "bp", blocks=blocks),
        ("feedback", "keep"): walk_module(module, inputs, "feedback", blocks=blocks),
    }
    with contextlib.suppress(MatchError):
        walks["feedback", "stream"] = walk_module(module, inputs, "feedback", blocks=blocks, recompute="stream")
    return walks


@cache
def walks_of_gpt(gpt: Gpt, precision: str, granularity: Granularity = "block") -> dict[WalkKey, Walk]:
    """Every walk of a GPT of any size, from siblings of two small depths and three widths."""
    # A large GPT is not walked itself, even without values that takes minutes: operations and bytes are polynomials of
    # the width, fixed by three widths, and affine in the depth, fixed by one and two blocks;
    # with hops by as many more.
    found = {}
    for key in KEYS:
        one, two = (
            widened(
                {
                    width: _sibling(replace(gpt, depth=depth, width=width), precision, granularity)[key]
                    for width in _WIDTHS
                },
                gpt.width,
            )
            for depth in (gpt.hops + 1, gpt.hops + 2)
        )
        # the largest of several weights is no polynomial
        largest = gpt.width * max(gpt.vocabulary, gpt.context, 4 * gpt.width)
        found[key] = replace(one.stretched(two, gpt.depth), largest=largest)
    return found


@cache
def _sibling(gpt: Gpt, precision: str, granularity: Granularity) -> dict[WalkKey, Walk]:
    return walks_of_run(gpt.run(granularity=granularity), gpt.shape, precision)
