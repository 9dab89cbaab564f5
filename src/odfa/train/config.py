"""A run as a tree of frozen dataclasses; each setting is explained on the line under it, once."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from odfa.device import Drift
from odfa.errors import ConfigError

Method = Literal["bp", "shallow", "dfa", "tdfa", "odfa", "identity"]
RuleName = Literal["random", "aligned", "electronic", "exact"]
_MAX_WIDTH, _MAX_REPEATS, _SEEDS = 2**20, 10_000, range(2**63)


def _require(condition: bool, key: str, expected: str, got: Any) -> None:
    if not condition:
        raise ConfigError(f"{key}: expected {expected}, got {got!r}")


@dataclass(frozen=True, kw_only=True)
class MlpConfig:
    """A multilayer perceptron: one block (linear map and activation) per hidden width, then a linear head."""

    widths: tuple[int, ...] = (128, 128)
    """Widths of the hidden blocks, from input to output."""
    activation: Literal["tanh", "gelu", "relu"] = "tanh"
    """Non-linearity at the end of each block."""

    def __post_init__(self) -> None:
        fits = len(self.widths) > 0 and all(0 < width <= _MAX_WIDTH for width in self.widths)
        _require(fits, "model.widths", f"one or more positive widths up to {_MAX_WIDTH}", self.widths)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"blocks.{k}" for k in range(len(self.widths)))

    @property
    def branches(self) -> tuple[str, ...]:
        """None: its blocks have no residual stream."""
        return ()

    @property
    def linears(self) -> tuple[str, ...]:
        """None: its blocks hold one linear map each."""
        return ()


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A causal language model of the transformers library, unmodified, built from its config with random weights."""

    family: Literal["gpt2", "llama"] = "gpt2"
    """gpt2: LayerNorm, learned positions, GELU; llama: RMSNorm, rotary positions, gated MLP, grouped heads."""
    width: int = 256
    """Width of the residual stream."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; they share the width."""
    kv_heads: int | None = None
    """llama: heads of keys and values, each serves heads / kv_heads queries; none: as many as heads."""
    mlp_width: int | None = None
    """Inner width of the MLP; none: four times the width."""
    tied: bool = False
    """Whether the read-out shares the embedding's weights; aligned rules need false."""
    readout_scale: float | None = None
    """Standard deviation of the untied read-out's initial weights times the root of the width, none: the library's
    0.02; aligned rules set feedback.scale instead."""

    def __post_init__(self) -> None:
        for key in ("width", "layers", "heads"):
            value = getattr(self, key)
            _require(0 < value <= _MAX_WIDTH, f"model.{key}", f"a positive number up to {_MAX_WIDTH}", value)
        per_head = 2 * self.heads if self.family == "llama" else self.heads  # rotary positions turn pairs
        _require(self.width % per_head == 0, "model.width", f"a multiple of {per_head} for the heads", self.width)
        shared = self.kv_heads is None or (self.kv_heads > 0 and self.heads % self.kv_heads == 0)
        _require(shared, "model.kv_heads", f"a divisor of the {self.heads} heads or none", self.kv_heads)
        _require(self.mlp_width is None or self.mlp_width > 0, "model.mlp_width", "a positive number", self.mlp_width)
        scale = self.readout_scale
        fits = scale is None or (0 < scale < math.inf and not self.tied)
        _require(fits, "model.readout_scale", "a positive number with model.tied=false, or none", scale)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each block's output."""
        return (self.width,) * self.layers

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the norms where the MLPs branch off the residual stream."""
        norm = "ln_2" if self.family == "gpt2" else "post_attention_layernorm"
        return tuple(f"{block}.{norm}" for block in self.blocks)

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps that end the branches."""
        ends = ("attn.c_proj", "mlp.c_proj") if self.family == "gpt2" else ("self_attn.o_proj", "mlp.down_proj")
        return tuple(f"{block}.{end}" for block in self.blocks for end in ends)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        stack = "transformer.h" if self.family == "gpt2" else "model.layers"
        return tuple(f"{stack}.{k}" for k in range(self.layers))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the data are and how they are cut."""

    path: str | None = None
    """Folder with the data; none: where the system's package puts them."""
    validation: int = 200
    """Samples held out of the training part; all choices are made on them."""
    limit: int | None = None
    """At most this many samples in each part, for quick runs; none: all."""

    def __post_init__(self) -> None:
        _require(self.validation > 0, "data.validation", "a positive number of samples", self.validation)
        _require(self.limit is None or self.limit > 0, "data.limit", "a positive number of samples or none", self.limit)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which text, and how it becomes sequences of tokens."""

    path: str | None = None
    """Folder of Cornell Movie-Dialogs, chitchat dataset.json, text file or folder of .txt files; none: the package
    chitchat-dataset."""
    vocabulary: int = 2048
    """Entries of the byte-level BPE that is trained on the training documents."""
    context: int = 64
    """Tokens in a sequence."""
    holdout: float = 0.05
    """Share of the documents in the validation part, and as much again in the test part."""
    validation: int = 1024
    """At most this many sequences of the validation part are looked at."""
    test: int | None = None
    """At most this many sequences of the test part; none: all."""
    limit: int | None = None
    """At most this many sequences in each part, for quick runs; none: all."""

    def __post_init__(self) -> None:
        _require(self.context > 1, "data.context", "two tokens or more", self.context)
        _require(0 < self.vocabulary <= _MAX_WIDTH, "data.vocabulary", "a positive number", self.vocabulary)
        _require(0 < self.holdout < 0.5, "data.holdout", "a share in (0, 0.5)", self.holdout)
        _require(self.validation > 0, "data.validation", "a positive number of sequences", self.validation)
        for key in ("test", "limit"):
            most = getattr(self, key)
            _require(most is None or most > 0, f"data.{key}", "a positive number of sequences or none", most)


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
    clip_norm: float | None = None
    """Gradients of larger total norm are scaled down to it; none: never."""
    clip_each: float | None = None
    """The gradient of each weight tensor whose own norm is larger is scaled down to it, also with fused updates; none:
    never."""

    def __post_init__(self) -> None:
        _require(0 < self.learning_rate < math.inf, "optimizer.learning_rate", "a positive number", self.learning_rate)
        _require(all(0 <= beta < 1 for beta in self.betas), "optimizer.betas", "two numbers in [0, 1)", self.betas)
        _require(0 <= self.weight_decay < math.inf, "optimizer.weight_decay", "zero or more", self.weight_decay)
        _require(
            0 < self.embedding_share < math.inf, "optimizer.embedding_share", "a positive number", self.embedding_share
        )
        _require(self.warmup_steps >= 0, "optimizer.warmup_steps", "zero or more", self.warmup_steps)
        _require(0 <= self.final_share <= 1, "optimizer.final_share", "a number in [0, 1]", self.final_share)
        for key in ("clip_norm", "clip_each"):
            value = getattr(self, key)
            _require(value is None or 0 < value < math.inf, f"optimizer.{key}", "a positive number or none", value)


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
    """Key of the fixed random matrix, or of the twin's medium."""
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
    device: str = "opu-2021"
    """Optical device of method odfa: opu-2021, a digital twin of the 2021 instrument; ideal, one without noise; or any
    name that `odfa device list` shows."""
    readout: Literal["phase", "phase3", "offaxis", "anchor"] = "phase"
    """How counts become a field: four or three reference phases, a tilted reference, or an anchor pattern instead of a
    reference."""
    calibration: str | None = None
    """Folder that `odfa device calibrate` wrote for this device, width, region and read-out; none: the run calibrates
    its witnesses itself."""
    witness_every: int | None = 1024
    """Vectors between two looks at witness patterns, which tell how far the matrix has drifted; none: it is trusted."""
    witness_correct: bool = True
    """Take the common phase and gain that the witnesses show out of the feedback."""
    witness_lost: Literal["stop", "recalibrate"] = "stop"
    """When the matrix is no longer the calibrated one: end the run, or calibrate anew and go on."""
    drift: Drift = field(default_factory=Drift)
    """What moves in the twin between frames."""
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
        _require(self.seed in _SEEDS, "feedback.seed", "a number in [0, 2^63)", self.seed)
        _require(self.group > 0, "feedback.group", "a positive number of blocks", self.group)
        _require(0 < self.threshold < 1, "feedback.threshold", "a number in (0, 1)", self.threshold)
        _require(0 < self.repeats <= _MAX_REPEATS, "feedback.repeats", f"1 to {_MAX_REPEATS}", self.repeats)
        _require(0 < self.scale < math.inf, "feedback.scale", "a positive number", self.scale)
        _require(self.rank is None or self.rank >= 0, "feedback.rank", "zero or more, or none", self.rank)
        _require(0 < self.head_share < math.inf, "feedback.head_share", "a positive number", self.head_share)
        _require(self.every > 0, "feedback.every", "a positive number of steps", self.every)
        looks = self.witness_every is None or self.witness_every > 0
        _require(looks, "feedback.witness_every", "a positive number of vectors or none", self.witness_every)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run: equal configs give equal weights on one machine."""

    recipe: str
    """Name under which the run is listed."""
    task: str
    """Data and loss: digits, fashion or text."""
    method: Method = "dfa"
    """bp: backpropagation; shallow: the head learns alone; dfa: digital projection; tdfa: so, with a ternary error;
    odfa: through an optical device; identity: unprojected error, a control."""
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
    threads: int | None = None
    """Processor threads, at most as many as processors; equal counts give runs equal bit for bit, small networks are
    fastest on one. none: unset."""
    tensorboard: bool = True
    """Also write TensorBoard events to the run folder's tb/."""
    model: MlpConfig | TransformerConfig = field(default_factory=MlpConfig)
    """The network."""
    data: DataConfig | TextConfig = field(default_factory=DataConfig)
    """The data."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    """The feedback."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """What is kept in memory."""

    def __post_init__(self) -> None:
        _require(self.seed in _SEEDS, "seed", "a number in [0, 2^63)", self.seed)
        for key in ("epochs", "batch_size", "log_every"):
            _require(getattr(self, key) > 0, key, "a positive number", getattr(self, key))
        for key in ("steps", "checkpoint_every", "evaluate_every", "threads"):
            value = getattr(self, key)
            _require(value is None or value > 0, key, "a positive number or none", value)
