"""What every optimiser shares: the course of the learning rate, decay, averaging and clipping."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from odfa.settings import MAX_COUNT, Settings, require

_FINAL_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings, ABC, room="odfa.session.optimizers", group="odfa.optimizers"):
    """How the weights move; the learning rate is a pure function of the step."""

    stochastic: ClassVar[bool] = False
    """Whether it can round bfloat16 weights up or down at random."""

    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    weight_decay: float = 0.0
    """adam: decoupled, learning rate times this share comes off the weights in each step; sgd: part of the gradient."""
    embedding_share: float = 1.0
    """Embeddings move with this share of the learning rate; the best rate of the other matrices falls with the width,
    theirs does not (arXiv 2203.03466)."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    final_share: float = _FINAL_SHARE
    """Share of the learning rate that the cosine ends with."""
    average: float | None = None
    """Decay of an exponential moving average of the weights, which is what is evaluated, loaded and sampled from; none:
    the weights themselves."""
    clip_norm: float | None = None
    """Gradients of larger total norm are scaled down to it; none: never."""
    clip_each: float | None = None
    """The gradient of each weight tensor whose own norm is larger is scaled down to it, also with fused updates; none:
    never."""

    def __post_init__(self) -> None:
        require(0 < self.learning_rate < math.inf, "learning_rate", "a positive number", self.learning_rate)
        require(0 <= self.weight_decay < math.inf, "weight_decay", "zero or more", self.weight_decay)
        require(0 < self.embedding_share < math.inf, "embedding_share", "a positive number", self.embedding_share)
        require(0 <= self.warmup_steps <= MAX_COUNT, "warmup_steps", "zero or more", self.warmup_steps)
        require(0 <= self.final_share <= 1, "final_share", "a number in [0, 1]", self.final_share)
        falls = self.schedule == "cosine" or self.final_share == _FINAL_SHARE
        require(falls, "final_share", "nothing with schedule=constant, which does not fall", self.final_share)
        decay = self.average
        require(decay is None or 0 < decay < 1, "average", "a number in (0, 1) or none", decay)
        for key in ("clip_norm", "clip_each"):
            value = getattr(self, key)
            require(value is None or 0 < value < math.inf, key, "a positive number or none", value)

    @property
    @abstractmethod
    def moments(self) -> int:
        """Numbers that it remembers for each weight."""

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], *, stochastic: bool = False) -> torch.optim.Optimizer:
        """torch's optimiser of these groups of parameters.

        Args:
            stochastic: round bfloat16 weights up or down at random, so that steps smaller than their spacing count on
                the average; moments are bfloat16 too. Only where the class says that it can.

        Raises:
            MissingExtra: the package that rounds is not installed.
        """

    def rate(self, step: int, total_steps: int) -> float:
        """Learning rate of step `step` (from 0): linear warm-up, then constant or cosine.

        rate = top * ramp * (final + (1 - final) * (1 + cos(pi t)) / 2),   t = share of the steps after the warm-up
        """
        ramp = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.schedule == "constant":
            return self.learning_rate * ramp
        share = max(0, step - self.warmup_steps) / max(1, total_steps - self.warmup_steps)
        wave = (1 + math.cos(math.pi * share)) / 2
        return self.learning_rate * ramp * (self.final_share + (1 - self.final_share) * wave)
