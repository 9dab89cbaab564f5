"""The settings of a run as a tree of frozen dataclasses; the text under a field is also its command-line help."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from odfa.devices import check_name
from odfa.engine.rules import AbstractRule, RandomFeedback
from odfa.project import GaussianSettings, ProjectionSettings
from odfa.session.optimizers import AdamSettings, OptimizerSettings
from odfa.settings import (
    FIXED,
    SEEDS,
    SEEDS_TOLD,
    SettingError,
    Settings,
    kinds_of,
    require,
    require_counts,
    tag_of,
    word_of,
)
from odfa.tasks.base import AbstractData, AbstractNetwork, AbstractTask

Granularity = Literal["block", "sublayer", "linear"]


@dataclass(frozen=True, kw_only=True)
class MemorySettings(Settings):
    """What is kept in memory during a step. Every rule works with every setting, but backpropagation cannot stream."""

    activations: Literal["keep", "recompute", "stream"] = "keep"
    """keep: all activations; recompute: only each block's input, from which the block runs again in the backward pass;
    stream: none, the model runs a second time and each block learns as soon as it has run."""
    fused: bool = False
    """Update each parameter during the backward pass as soon as its gradient is ready, then free the gradient."""
    precision: Literal["float32", "tf32", "autocast", "bfloat16"] = "float32"
    """Type of weights, activations and moments; bfloat16 weights are rounded stochastically, which needs torchao and a
    C++ compiler. autocast: weights and moments are float32, and products of the forward pass are bfloat16, as
    torch.autocast chooses them. tf32: all are float32, and products read 11 of its 24 bits (cuda, xpu); torch computes
    convolutions on NVIDIA GPUs so by default."""
    storage: Literal["memory", "disk"] = "memory"
    """Where large weights and moments are; disk: in memory-mapped files in the cache folder, which are gone when the
    process ends (Linux)."""
    head_rows: int | None = None
    """Rows (tokens) whose logits and error are there at a time; each is computed twice then, and the head takes a third
    or a half more products. none: those of the whole batch. For language, and rules that work row by row."""

    def __post_init__(self) -> None:
        require_counts(self, "head_rows", what="a positive number of rows or none")


@dataclass(frozen=True, kw_only=True)
class FeedbackSettings(Settings):
    """Where signals enter the network, and how fast the head learns; for rules that feed blocks."""

    granularity: Granularity = "block"
    """block: attention and MLP of a Transformer block learn together from one signal; sublayer: each learns by itself,
    and the gradient with respect to the MLP's input is dropped; linear: as sublayer, and the linear map that ends each
    of them passes its signal back through a fixed matrix that all blocks share."""
    group: int = 1  # Settings.group is of slots, which this is not
    """Number of neighbouring blocks that get one signal, at the last of them; it reaches the others by
    backpropagation."""
    head_share: float = 1.0
    """Learning rate of the head over that of the other weights; with poor feedback a value above one helps, as the
    blocks then change slowly while the head learns."""

    def __post_init__(self) -> None:
        require_counts(self, "group", what="a positive number of blocks")
        require(0 < self.head_share < math.inf, "head_share", "a positive number", self.head_share)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """All settings of a run; equal configs give equal weights on one machine."""

    recipe: str = field(metadata=FIXED)
    """Name of the recipe that made this config."""
    seed: int = 0
    """Determines the initial weights, the order of the data, and the random draws of encoders and of noise."""
    epochs: int = 10
    """Number of passes over the training data."""
    steps: int | None = None
    """Number of optimiser steps of the run; none: as many as the epochs take."""
    batch_size: int = 64
    """Samples per step; samples that do not fill a batch at the end of an epoch are left out of it."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints; none: one per epoch."""
    evaluate_every: int | None = None
    """Steps between two evaluations on the validation part; none: one per epoch."""
    align_every: int | None = None
    """Steps between two measurements of the angles to the true gradient on validation data, for rules that feed blocks;
    none: no measurement."""
    threads: int | None = None
    """Processor threads, at most one per processor; runs are equal bit for bit only if their counts are, and small
    networks are fastest on one thread. none: torch's own choice."""
    device: str = "cpu"
    """Where the network is computed: cpu, cuda, cuda:N, mps, xpu or xpu:N; auto: the first accelerator of this machine,
    or else cpu. The data stay on the processor, and a run may go on on another device."""
    compile: bool = False
    """Compile each block by torch's inductor (on the processor it needs a C++ compiler, on a GPU triton), for runs of
    many steps: the first ones wait for it. Results are the same to rounding, and dropout draws differ."""
    tensorboard: bool = True
    """Also write TensorBoard events to the run folder's tb/."""
    task: AbstractTask
    """Task: the loss and the metric, and so what is learned."""
    network: AbstractNetwork
    """Network whose weights are trained."""
    data: AbstractData
    """Data set, and how it is cut into training, validation and test part."""
    optimizer: OptimizerSettings = field(default_factory=AdamSettings)
    """Optimiser and its schedule."""
    rule: AbstractRule = field(default_factory=RandomFeedback)
    """Rule by which the blocks learn."""
    projection: ProjectionSettings | None = field(default_factory=GaussianSettings)
    """Projection that carries the error to the blocks; none: the rule projects nothing."""
    feedback: FeedbackSettings | None = field(default_factory=FeedbackSettings)
    """Where the signals enter the network; none: the rule feeds no block."""
    memory: MemorySettings = field(default_factory=MemorySettings)
    """What is kept in memory during a step, and in which form."""

    def __post_init__(self) -> None:
        require(self.seed in SEEDS, "seed", SEEDS_TOLD, self.seed)
        require_counts(self, "epochs", "batch_size", "log_every")
        choices = ("steps", "checkpoint_every", "evaluate_every", "align_every", "threads")
        require_counts(self, *choices, what="a positive number or none")
        check_name(self.device)
        self._check_rule()

    def _check_rule(self) -> None:
        """Refuse a projection or feedback that the rule does not read, and a rule that lacks one of them."""
        # settings that nothing reads would make two equal runs look different, and would mislead whoever reads them
        rule, given = _named(self.rule), "none" if self.projection is None else word_of(self.projection)
        needed = f"one of {', '.join(kinds_of(ProjectionSettings))}" if self.rule.projects else "none"
        if (self.projection is not None) != self.rule.projects:
            raise SettingError("projection", f"expected {needed} with {rule}, got {given}")
        given = "none" if self.feedback is None else "settings"
        if (self.feedback is not None) != self.rule.feeds:
            needed = "default, or settings," if self.rule.feeds else "none"
            raise SettingError("feedback", f"expected {needed} with {rule}, got {given}")
        fits = self.align_every is None or self.rule.feeds
        require(fits, "align_every", f"none, as {_named(self.rule)} feeds no block", self.align_every)

    def unread(self) -> Mapping[str, str]:
        """The number of epochs where steps are given; what is due only after the last of these steps; feedback and
        projection where the rule has none; what only shapes the start of a head that the rule sets; how an optimiser
        moves matrices of blocks that keep their weights."""
        told = f"steps={self.steps} says how long the run is (or steps=none)"
        counted = {} if self.steps is None else {"epochs": told, **self.never_due(self.steps)}
        overwritten = f"{_named(self.rule)} sets the head to weights of its own"
        starts = self.network.of_head if self.rule.sets_head else ()
        unfed = f"{_named(self.rule)} feeds no block, so there is no feedback to place"
        unprojected = f"{_named(self.rule)} projects nothing, so there is no projection to set"
        absent = {"feedback": unfed} if not self.rule.feeds else {}
        absent |= {"projection": unprojected} if not self.rule.projects else {}
        kept = f"{_named(self.rule)} leaves the blocks as they are, and this moves matrices in blocks only"
        moving = self.optimizer.of_matrices if self.rule.cuts and not self.rule.feeds else ()
        unmoved = {f"optimizer.{name}": kept for name in moving}
        return counted | absent | unmoved | {f"network.{name}": overwritten for name in starts}

    def never_due(self, steps: int) -> Mapping[str, str]:
        """Setting → why, of those that wait for a step that a run of so many steps does not reach."""
        told = f"the run ends after {steps} steps, so this never comes"
        due = {"evaluate_every": self.evaluate_every, "align_every": self.align_every}
        return {name: told for name, every in due.items() if every is not None and every > steps}

    @property
    def label(self) -> str:
        """Rule and projection in a few words, for titles and legends of figures."""
        return self.rule.label if self.projection is None else f"{self.rule.label}, {self.projection.label}"

    def changed(self, name: str, value: Any) -> Self:
        """A copy with another value. Another rule also changes projection and feedback: each is kept, added with its
        defaults, or removed, as that rule needs.

        Raises:
            SettingError: the value is out of range.
        """
        if name != "rule" or not isinstance(value, AbstractRule):
            return super().changed(name, value)
        projection = (self.projection or GaussianSettings()) if value.projects else None
        feedback = (self.feedback or FeedbackSettings()) if value.feeds else None
        measured = self.align_every if value.feeds else None
        return replace(self, rule=value, projection=projection, feedback=feedback, align_every=measured)


def _named(rule: AbstractRule) -> str:
    return f"rule={tag_of(rule)}"
