"""Settings that all optimisers share: learning rate and its schedule, weight decay, averaging, clipping."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from odfa.settings import MAX_COUNT, Settings, require

Group = dict[str, list[nn.Parameter] | float | str]
"""A group of parameters as torch's optimisers take it: `params`, `rate_share`, their share of the learning rate, and
`role`, the word that `OptimizerSettings.roles` has for them; empty if it has none."""
_FINAL_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings, ABC, room="odfa.session.optimizers", group="odfa.optimizers"):
    """How an optimiser moves the weights; its learning rate depends on nothing but the step."""

    stochastic: ClassVar[bool] = False
    """Whether the optimiser can round bfloat16 weights up or down at random."""
    of_matrices: ClassVar[tuple[str, ...]] = ()
    """Settings that move weights inside blocks and nothing else: no run whose blocks keep their weights reads them."""

    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    weight_decay: float = 0.0
    """adam, muon: each step also shrinks the weights by their learning rate times this; sgd: this times the weight is
    added to its gradient."""
    embedding_share: float = 1.0
    """Learning rate of embeddings over that of the other weights, whose best rate falls with the width while that of
    embeddings does not (arXiv 2203.03466)."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: after the warm-up the learning rate falls along half a cosine; constant: it stays."""
    final_share: float = _FINAL_SHARE
    """Learning rate at the end of the cosine over the highest one."""
    average: float | None = None
    """Decay of an exponential moving average of the weights; the average is then what is evaluated, loaded and sampled
    from. none: no average is kept, the weights themselves are used."""
    clip_norm: float | None = None
    """If the norm of all gradients together is larger, they are scaled down to this norm; none: never."""
    clip_each: float | None = None
    """If the norm of one weight tensor's gradient is larger, that gradient is scaled down to this norm; possible with
    fused updates, too. none: never."""

    def __post_init__(self) -> None:
        require(0 < self.learning_rate < math.inf, "learning_rate", "a positive number", self.learning_rate)
        require(0 <= self.weight_decay < math.inf, "weight_decay", "zero or more", self.weight_decay)
        require(0 < self.embedding_share < math.inf, "embedding_share", "a positive number", self.embedding_share)
        require(0 <= self.warmup_steps <= MAX_COUNT, "warmup_steps", "zero or more", self.warmup_steps)
        require(0 <= self.final_share <= 1, "final_share", "a number in [0, 1]", self.final_share)
        # a value that nothing reads would mislead; the default cannot be told from a value that was given
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
        """How many numbers the optimiser remembers for each weight."""

    def moments_of(self, role: str) -> int:
        """How many numbers the optimiser remembers for each weight of such a role."""
        return self.moments

    def roles(self, model: nn.Module, blocks: Iterable[str]) -> Mapping[Tensor, str]:
        """Weight → a word, for weights that this optimiser treats unlike others; each word has groups of its own.

        Args:
            blocks: names of the blocks in `model`.

        Raises:
            ConfigError: the optimiser is none for this model.
        """
        return {}

    @abstractmethod
    def build(self, groups: list[Group], *, stochastic: bool = False) -> torch.optim.Optimizer:
        """An optimiser of torch for these groups of parameters.

        Args:
            stochastic: round bfloat16 weights up or down at random, so that steps smaller than the spacing of bfloat16
                numbers have their effect on average; moments are bfloat16, too. Given only to classes whose
                `stochastic` is true.

        Raises:
            MissingExtra: the package that rounds is not installed.
        """

    def rate(self, step: int, total_steps: int) -> float:
        """Learning rate of step `step`, counted from 0: linear warm-up, then constant or cosine.

        rate = top * ramp * (final + (1 - final) * (1 + cos(pi t)) / 2),   t = share of the steps after the warm-up
        """
        ramp = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.schedule == "constant":
            return self.learning_rate * ramp
        share = max(0, step - self.warmup_steps) / max(1, total_steps - self.warmup_steps)
        wave = (1 + math.cos(math.pi * share)) / 2
        return self.learning_rate * ramp * (self.final_share + (1 - self.final_share) * wave)
