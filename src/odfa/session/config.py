"""A run as a tree of frozen settings; each setting is explained on the line under it, once."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from odfa.engine.rules import AbstractRule, RandomFeedback
from odfa.project import GaussianSettings, ProjectionSettings
from odfa.session.optimizers import AdamSettings, OptimizerSettings
from odfa.settings import FIXED, SEEDS, SEEDS_TOLD, Settings, require, require_counts, tag_of
from odfa.tasks.base import AbstractData, AbstractNetwork, AbstractTask

Granularity = Literal["block", "sublayer", "linear"]


@dataclass(frozen=True, kw_only=True)
class MemorySettings(Settings):
    """What is kept in memory during a step; every rule can use every setting, but backpropagation cannot stream."""

    activations: Literal["keep", "recompute", "stream"] = "keep"
    """keep: all; recompute: each block's input, the block runs again in backward; stream: nothing, the model runs again
    and each block learns as it passes."""
    fused: bool = False
    """Update each parameter in backward as soon as its gradient is ready, and free the gradient."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Weights, activations and moments; bfloat16 weights are rounded stochastically (torchao, a C++ compiler)."""
    storage: Literal["memory", "disk"] = "memory"
    """Where large weights and moments live; disk: in memory-mapped files of the cache folder, without names (Linux)."""


@dataclass(frozen=True, kw_only=True)
class FeedbackSettings(Settings):
    """Where signals enter the network, and how fast the head follows; runs whose rule feeds no block have none."""

    granularity: Granularity = "block"
    """Transformers: attention and MLP of a block learn together; or each by itself, without the gradient of the MLP's
    input; or, beyond that, the linear map that ends each hands its signal on by a matrix that all blocks share."""
    group: int = 1  # Settings.group is of slots, which this is not
    """Neighbouring blocks that share one feedback point and learn by backpropagation among themselves."""
    head_share: float = 1.0
    """Learning rate of the head over that of the other weights; above one where the feedback is poor, so that blocks
    that learn the wrong thing learn it slowly."""

    def __post_init__(self) -> None:
        require_counts(self, "group", what="a positive number of blocks")
        require(0 < self.head_share < math.inf, "head_share", "a positive number", self.head_share)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """Everything that determines a run: equal configs give equal weights on one machine."""

    recipe: str = field(metadata=FIXED)
    """Name under which the run is listed."""
    seed: int = 0
    """Key of the initial weights, of the order of the data and of the ternary draws and noise."""
    epochs: int = 10
    """Passes over the training data."""
    steps: int | None = None
    """Optimiser steps of the run; none: as many as the epochs take."""
    batch_size: int = 64
    """Samples per step; what is left at the end of an epoch is dropped."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints; none: one per epoch."""
    evaluate_every: int | None = None
    """Steps between two looks at the validation part; none: one per epoch."""
    align_every: int | None = None
    """Steps between two measurements of the angles to the true gradient on validation data, for rules that feed blocks;
    none: no measurement."""
    threads: int | None = None
    """Processor threads, at most as many as processors; equal counts give runs equal bit for bit, small networks are
    fastest on one. none: unset."""
    tensorboard: bool = True
    """Also write TensorBoard events to the run folder's tb/."""
    task: AbstractTask
    """What is learned."""
    network: AbstractNetwork
    """The network."""
    data: AbstractData
    """The data."""
    optimizer: OptimizerSettings = field(default_factory=AdamSettings)
    """The optimiser."""
    rule: AbstractRule = field(default_factory=RandomFeedback)
    """How the blocks learn."""
    projection: ProjectionSettings | None = field(default_factory=GaussianSettings)
    """What carries the error to the blocks; none: the rule projects nothing."""
    feedback: FeedbackSettings | None = field(default_factory=FeedbackSettings)
    """Where signals enter; none: the rule feeds no block."""
    memory: MemorySettings = field(default_factory=MemorySettings)
    """What is kept in memory."""

    def __post_init__(self) -> None:
        require(self.seed in SEEDS, "seed", SEEDS_TOLD, self.seed)
        require_counts(self, "epochs", "batch_size", "log_every")
        choices = ("steps", "checkpoint_every", "evaluate_every", "align_every", "threads")
        require_counts(self, *choices, what="a positive number or none")
        self._check_rule()

    def _check_rule(self) -> None:
        """A rule, its projection and its feedback go together, so that nothing is set that nobody would read."""
        needed = "settings" if self.rule.projects else "none"
        fits = (self.projection is not None) == self.rule.projects
        require(fits, "projection", f"{needed} with {_named(self.rule)}", self.projection)
        fits, needed = (self.feedback is not None) == self.rule.feeds, "settings" if self.rule.feeds else "none"
        require(fits, "feedback", f"{needed} with {_named(self.rule)}", self.feedback)
        fits = self.align_every is None or self.rule.feeds
        require(fits, "align_every", f"none, as {_named(self.rule)} feeds no block", self.align_every)

    @property
    def label(self) -> str:
        """Rule and projection in a few words, for titles and legends."""
        return self.rule.label if self.projection is None else f"{self.rule.label}, {self.projection.label}"

    def changed(self, name: str, value: Any) -> Self:
        """A copy with another value; with another rule, projection and feedback are kept, added or left out as that
        rule needs.

        Raises:
            SettingError: the value does not hold.
        """
        if name != "rule":
            return super().changed(name, value)
        projection = (self.projection or GaussianSettings()) if value.projects else None
        feedback = (self.feedback or FeedbackSettings()) if value.feeds else None
        measured = self.align_every if value.feeds else None
        return replace(self, rule=value, projection=projection, feedback=feedback, align_every=measured)


def _named(rule: AbstractRule) -> str:
    return f"rule={tag_of(rule)}"
