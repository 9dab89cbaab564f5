"""A run as a tree of frozen settings; each setting is explained on the line under it, once."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from odfa.opu import Drift
from odfa.settings import FIXED, MAX_COUNT, SEEDS, SEEDS_TOLD, Settings, require, require_counts
from odfa.tasks.base import AbstractData, AbstractNetwork, AbstractTask
from odfa.train.optimizers import AdamSettings, OptimizerSettings

Method = Literal["bp", "shallow", "dfa", "tdfa", "odfa", "identity"]
RuleName = Literal["random", "aligned", "electronic", "exact"]
_MAX_REPEATS = 10_000


@dataclass(frozen=True, kw_only=True)
class MemorySettings(Settings):
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
class FeedbackConfig(Settings):
    """How the error travels to the blocks; settings that the chosen method or rule does not use have no effect."""

    seed: int = 0
    """Key of the fixed random matrix, or of a twin's medium; an instrument's glass has none, and takes 0 only."""
    projection: Literal["gaussian", "hadamard", "rademacher"] = "gaussian"
    """Random matrix of the digital methods: a Gaussian one drawn from its key; a structured one with the same
    statistics and no stored entries; independent signs."""
    granularity: Literal["block", "sublayer", "linear"] = "block"
    """Transformers: attention and MLP of a block learn together; or each by itself, without the gradient of the MLP's
    input; or, beyond that, the linear map that ends each hands its signal on by a matrix that all blocks share."""
    group: int = 1  # type: ignore[assignment, misc]  # Settings.group is of slots, which this is not
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
    calibration: Path | None = None
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
        require(self.seed in SEEDS, "seed", SEEDS_TOLD, self.seed)
        require_counts(self, "group", what="a positive number of blocks")
        require(0 < self.threshold < 1, "threshold", "a number in (0, 1)", self.threshold)
        require(0 < self.repeats <= _MAX_REPEATS, "repeats", f"1 to {_MAX_REPEATS}", self.repeats)
        require(0 < self.scale < math.inf, "scale", "a positive number", self.scale)
        rank = self.rank
        require(rank is None or 0 <= rank <= MAX_COUNT, "rank", "zero or more, or none", rank)
        require(0 < self.head_share < math.inf, "head_share", "a positive number", self.head_share)
        require_counts(self, "every", what="a positive number of steps")
        require(self.bits is None or 0 < self.bits <= 16, "bits", "1 to 16 or none", self.bits)
        require_counts(self, "witness_every", what="a positive number of vectors or none")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """Everything that determines a run: equal configs give equal weights on one machine."""

    recipe: str = field(metadata=FIXED)
    """Name under which the run is listed."""
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
    task: AbstractTask
    """What is learned."""
    network: AbstractNetwork
    """The network."""
    data: AbstractData
    """The data."""
    optimizer: OptimizerSettings = field(default_factory=AdamSettings)
    """The optimiser."""
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    """The feedback."""
    memory: MemorySettings = field(default_factory=MemorySettings)
    """What is kept in memory."""

    def __post_init__(self) -> None:
        require(self.seed in SEEDS, "seed", SEEDS_TOLD, self.seed)
        require_counts(self, "epochs", "batch_size", "log_every")
        choices = ("steps", "checkpoint_every", "evaluate_every", "align_every", "threads")
        require_counts(self, *choices, what="a positive number or none")
