"""A run as a tree of frozen dataclasses; each setting is explained on the line under it, once."""

import math
from dataclasses import dataclass, field
from typing import Literal

from odfa.opu import Drift
from odfa.train.config.base import MAX_COUNT, SEEDS, SEEDS_TOLD, require, require_counts
from odfa.train.config.data import AnyData, DataConfig
from odfa.train.config.model import AnyModel, MlpConfig

Method = Literal["bp", "shallow", "dfa", "tdfa", "odfa", "identity"]
RuleName = Literal["random", "aligned", "electronic", "exact"]
_MAX_REPEATS = 10_000


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How the weights move; the learning rate is a pure function of the step."""

    name: Literal["adam", "sgd"] = "adam"
    """adam: AdamW; sgd: stochastic gradient descent with momentum betas[0]."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.99)
    """adam: the two averaging constants; sgd: the first one is the momentum (0: none), the second has no effect."""
    weight_decay: float = 0.0
    """adam: decoupled, learning rate times this share comes off the weights in each step; sgd: part of the gradient."""
    embedding_share: float = 1.0
    """Embeddings move with this share of the learning rate; the best rate of the other matrices falls with the width,
    theirs does not (arXiv 2203.03466)."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    final_share: float = 0.05
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
        require(0 < self.learning_rate < math.inf, "optimizer.learning_rate", "a positive number", self.learning_rate)
        require(all(0 <= beta < 1 for beta in self.betas), "optimizer.betas", "two numbers in [0, 1)", self.betas)
        require(0 <= self.weight_decay < math.inf, "optimizer.weight_decay", "zero or more", self.weight_decay)
        require(
            0 < self.embedding_share < math.inf, "optimizer.embedding_share", "a positive number", self.embedding_share
        )
        require(0 <= self.warmup_steps <= MAX_COUNT, "optimizer.warmup_steps", "zero or more", self.warmup_steps)
        require(0 <= self.final_share <= 1, "optimizer.final_share", "a number in [0, 1]", self.final_share)
        decay = self.average
        require(decay is None or 0 < decay < 1, "optimizer.average", "a number in (0, 1) or none", decay)
        for key in ("clip_norm", "clip_each"):
            value = getattr(self, key)
            require(value is None or 0 < value < math.inf, f"optimizer.{key}", "a positive number or none", value)


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What is kept in memory during a step; every method can use every setting but bp and stream."""

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
class FeedbackConfig:
    """How the error travels to the blocks; settings that the chosen method or rule does not use have no effect."""

    seed: int = 0
    """Key of the fixed random matrix, or of a twin's medium; an instrument's glass has none, and takes 0 only."""
    projection: Literal["gaussian", "hadamard", "rademacher"] = "gaussian"
    """Random matrix of the digital methods: a Gaussian one drawn from its key; a structured one with the same
    statistics and no stored entries; independent signs."""
    granularity: Literal["block", "sublayer", "linear"] = "block"
    """Transformers: attention and MLP of a block learn together; or each by itself, without the gradient of the MLP's
    input; or, beyond that, the linear map that ends each hands its signal on by a matrix that all blocks share."""
    group: int = 1
    """Neighbouring blocks that share one feedback point and learn by backpropagation among themselves."""
    shared: bool = False
    """Random rule: true sends every block the same slice of the projected error."""
    quantiser: Literal["stochastic", "best_cosine", "relative_max", "sampled"] = "stochastic"
    """Ternary code of the error (methods tdfa and odfa)."""
    threshold: float = 0.5
    """Threshold of the relative_max quantiser, as a share of the row's largest entry."""
    repeats: int = 1
    """Independent draws that are averaged (quantisers stochastic and sampled)."""
    bits: int | None = None
    """Methods tdfa and odfa: send real values in that many bit planes, two patterns each, instead of a ternary code."""
    opu: str = "opu-2021"
    """OPU of method odfa: opu-2021 or twin, a digital twin of the 2021 instrument; ideal, one without noise;
    or any name that `odfa opu list` shows."""
    demodulator: Literal["phase", "phase3", "offaxis", "anchor"] = "phase"
    """How counts become a field: four or three reference phases, a tilted reference, or an anchor pattern instead of a
    reference."""
    calibration: str | None = None
    """Folder that `odfa opu calibrate` wrote for this OPU, width, region and demodulator; none: the run calibrates
    its witnesses itself."""
    witness_every: int | None = 1024
    """Vectors between two looks at witness patterns, which tell how far the matrix has drifted; none: it is trusted."""
    witness_correct: bool = True
    """Take the common phase and gain that the witnesses show out of the feedback."""
    witness_lost: Literal["stop", "recalibrate"] = "stop"
    """When the matrix is no longer the calibrated one: end the run, or calibrate anew and go on."""
    drift: Drift = field(default_factory=Drift)
    """What moves in a twin between frames."""
    scale: float = 0.25
    """Aligned and electronic rules: a in the read-out's initial weights W = a Bᵀ."""
    rank: int | None = None
    """Aligned and electronic rules: rank of the electronic correction; none: an eighth of the smaller side of the
    read-out."""
    every: int = 20
    """Aligned and electronic rules: steps between two fits of the correction."""
    head_share: float = 1.0
    """Methods with feedback: learning rate of the read-out over that of the other weights; above one where the feedback
    is poor, so that blocks that learn the wrong thing learn it slowly."""

    def __post_init__(self) -> None:
        require(self.seed in SEEDS, "feedback.seed", SEEDS_TOLD, self.seed)
        require_counts(self, "feedback.", "group", what="a positive number of blocks")
        require(0 < self.threshold < 1, "feedback.threshold", "a number in (0, 1)", self.threshold)
        require(0 < self.repeats <= _MAX_REPEATS, "feedback.repeats", f"1 to {_MAX_REPEATS}", self.repeats)
        require(0 < self.scale < math.inf, "feedback.scale", "a positive number", self.scale)
        rank = self.rank
        require(rank is None or 0 <= rank <= MAX_COUNT, "feedback.rank", "zero or more, or none", rank)
        require(0 < self.head_share < math.inf, "feedback.head_share", "a positive number", self.head_share)
        require_counts(self, "feedback.", "every", what="a positive number of steps")
        require(self.bits is None or 0 < self.bits <= 16, "feedback.bits", "1 to 16 or none", self.bits)
        require_counts(self, "feedback.", "witness_every", what="a positive number of vectors or none")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run: equal configs give equal weights on one machine."""

    recipe: str
    """Name under which the run is listed."""
    task: str
    """Data and loss: digits, fashion or text."""
    method: Method = "dfa"
    """bp: backpropagation; shallow: the head learns alone; dfa: digital projection; tdfa: so, with a ternary error;
    odfa: through an OPU; identity: unprojected error, a control."""
    rule: RuleName = "random"
    """Where the projected error enters: random feedback, aligned read-out, its electronic part alone, or the exact
    error of the aligned read-out's place, a bound."""
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
    """Steps between two measurements of the angles to the true gradient on validation data, for methods with feedback;
    none: no measurement."""
    threads: int | None = None
    """Processor threads, at most as many as processors; equal counts give runs equal bit for bit, small networks are
    fastest on one. none: unset."""
    tensorboard: bool = True
    """Also write TensorBoard events to the run folder's tb/."""
    model: AnyModel = field(default_factory=MlpConfig)
    """The network."""
    data: AnyData = field(default_factory=DataConfig)
    """The data."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    """The feedback."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """What is kept in memory."""

    def __post_init__(self) -> None:
        require(self.seed in SEEDS, "seed", SEEDS_TOLD, self.seed)
        require_counts(self, "", "epochs", "batch_size", "log_every")
        choices = ("steps", "checkpoint_every", "evaluate_every", "align_every", "threads")
        require_counts(self, "", *choices, what="a positive number or none")
