"""A recipe of a language model at several sizes, each with tokens in proportion to its parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from odfa.arms import BACKPROP, arm
from odfa.data import DataShape
from odfa.error.head import find_head
from odfa.errors import ConfigError
from odfa.saved import Json
from odfa.scaling.walk import walk_run
from odfa.session import RunConfig
from odfa.session.memory import new_weights
from odfa.settings import MAX_COUNT, SettingError, Settings, require, tag_of
from odfa.tasks.language.transformer import CausalNetwork

USUAL = {"width": (32, 64, 96, 128), "depth": (2, 4, 8, 16, 24)}
"""Axis → sizes where none are given: with deep_gpt the largest takes more than fifty times the compute of the least."""


@dataclass(frozen=True, kw_only=True)
class SizesSettings(Settings):
    """What of the network grows, and how much each size learns from."""

    axis: Literal["width", "depth"] = "width"
    """What grows: the width, at the recipe's number of blocks, or the number of blocks, at its width."""
    sizes: tuple[int, ...] | None = None
    """Widths or numbers of blocks, two at least; none: 32 to 128 wide, or 2 to 24 blocks deep."""
    head_width: int = 32
    """Width of an attention head: there are width / head_width heads."""
    tokens_per_parameter: float = 20.0
    """Tokens that a size learns from, over its parameters in blocks and head."""
    floor: float | None = None
    """Validation loss that no compute removes, for all arms; none: fitted for each arm to four sizes or more, and 0 for
    fewer."""

    def __post_init__(self) -> None:
        sizes = self.sizes
        if sizes is not None:
            sound = len(sizes) > 1 and all(before < after for before, after in zip((0, *sizes), sizes, strict=False))
            require(sound, "sizes", "two or more positive integers, each larger than the one before", sizes)
        require(0 < self.head_width <= MAX_COUNT, "head_width", "a positive number", self.head_width)
        told = "a positive number up to 10,000"
        require(0 < self.tokens_per_parameter <= 1e4, "tokens_per_parameter", told, self.tokens_per_parameter)
        require(self.floor is None or self.floor >= 0, "floor", "a loss of 0 or more, or none", self.floor)
        if self.axis == "width":
            for width in self.listed:
                require(width % self.head_width == 0, "sizes", f"multiples of head_width={self.head_width}", width)

    @property
    def listed(self) -> tuple[int, ...]:
        """The sizes, smallest first."""
        return USUAL[self.axis] if self.sizes is None else self.sizes


@dataclass(frozen=True, kw_only=True)
class Sized:
    """The recipe at one size; `run` has as many steps as its tokens take."""

    name: str
    """Axis and size, such as width64."""
    run: RunConfig
    learned: int
    """Parameters of blocks and head, which the tokens are in proportion to."""
    parameters: int
    """All parameters."""
    tokens: int
    """Tokens that the run learns from, a whole number of steps."""
    compute: float
    """Multiply-adds of the forward and the backward pass of backpropagation over all tokens."""
    passes: float
    """Passes over the training part."""

    def to_json(self) -> Json:
        """The figures as plain values."""
        network: Any = self.run.network
        return {
            "name": self.name,
            "width": network.width,
            "layers": network.layers,
            "heads": network.heads,
            "parameters": self.parameters,
            "in_blocks_and_head": self.learned,
            "tokens": self.tokens,
            "steps": self.run.steps,
            "passes": self.passes,
            "compute": self.compute,
        }


def sized(run: RunConfig, settings: SizesSettings) -> list[Sized]:
    """The run at every size, smallest first; nothing is allocated.

    Raises:
        ConfigError: a run that is no language model of blocks, a width that heads do not divide. DataError: its data
            are missing.
    """
    if not isinstance(run.network, CausalNetwork):
        raise ConfigError(
            f"expected a recipe of a causal Transformer, got {run.recipe}, whose network is of the kind "
            f"{tag_of(run.network)}"
        )
    shape = run.data.peek()
    return [_sized(run, settings, size, shape) for size in settings.listed]


def _sized(run: RunConfig, settings: SizesSettings, size: int, shape: DataShape) -> Sized:
    network: Any = run.network
    width, layers = (size, network.layers) if settings.axis == "width" else (network.width, size)
    told = f"a multiple of head_width={settings.head_width}"
    require(width % settings.head_width == 0, "width", told, width)
    try:
        chosen = replace(network, width=width, layers=layers, heads=width // settings.head_width)
    except SettingError as error:
        raise ConfigError(f"{settings.axis} {size}: {error}") from error
    made = replace(run, network=chosen)
    every, learned = _parameters(made, shape)
    a_step = run.batch_size * chosen.num_rows(shape)
    steps = max(1, round(settings.tokens_per_parameter * learned / a_step))
    require(steps <= MAX_COUNT, "tokens_per_parameter", f"at most {MAX_COUNT:,} steps a run", steps)
    walk = walk_run(arm(made, BACKPROP), shape)
    return Sized(
        name=f"{settings.axis}{size}",
        run=replace(made, steps=steps),
        learned=learned,
        parameters=every,
        tokens=steps * a_step,
        compute=steps * (walk.forward.flops + walk.backward.flops) / 2,
        passes=steps * run.batch_size / shape.num_train,
    )


def _parameters(run: RunConfig, shape: DataShape) -> tuple[int, int]:
    """Number of all parameters, and of those in blocks and head."""
    with torch.device("meta"), new_weights(run.memory):
        model = run.network.build(shape)
    blocks = [model.get_submodule(name) for name in run.network.blocks]
    head = find_head(model, blocks)
    parts = [*blocks, *([] if head is None else [head[1]])]
    inside = {id(parameter): parameter.numel() for part in parts for parameter in part.parameters()}
    return sum(parameter.numel() for parameter in model.parameters()), sum(inside.values())


def check_alike(size: Sized, arms: dict[str, RunConfig]) -> None:
    """Refuse an arm with another network, or other tokens, than the rest: its compute would be another.

    Raises:
        ConfigError: the first such arm.
    """
    for word, run in arms.items():
        for part in ("network", "batch_size", "steps"):
            if getattr(run, part) != getattr(size.run, part):
                raise ConfigError(
                    f"arms: {word} has another {part} than the rest; all arms of a size have it in common"
                )


def spans(sizes: Sequence[Sized]) -> float:
    """Compute of the largest size over that of the smallest."""
    return sizes[-1].compute / sizes[0].compute
