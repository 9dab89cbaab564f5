"""Memory and precision of a step: recomputed activations, fused updates, bfloat16 or cast weights, weights on disk."""

import contextlib
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from odfa.devices import casts_to_bfloat16, device_named
from odfa.errors import ConfigError
from odfa.session.config import MemorySettings, RunConfig
from odfa.session.disk import EmptyOnDisk, keep_on_disk
from odfa.session.optimizers import Group
from odfa.settings import require, tag_of

if TYPE_CHECKING:
    from odfa.engine import DFA, FusedOptimizer

_M_MMAP_THRESHOLD = -3
"""Number of this option in glibc's malloc.h."""


def check_memory(config: RunConfig) -> None:
    """Refuse settings of memory that the rule, the network or the optimiser cannot work with.

    Raises:
        ConfigError: streaming with backpropagation, learned weights on disk, weights on disk for an accelerator, a
            head in rows for a task or a rule that takes all of them, tf32 on a device that has none, autocast on one
            that cannot or with feedback per linear layer, clipping by the total norm with fused updates, bfloat16 with
            an optimiser that does not round stochastically.
    """
    memory = config.memory
    if memory.activations == "stream" and not config.rule.cuts:
        raise ConfigError(
            "memory.activations=stream: backpropagation learns from the last block to the first and needs all of "
            "their inputs; expected recompute"
        )
    # from_pretrained makes tensors of its own: `EmptyOnDisk` never sees them
    if config.network.learned and memory.storage == "disk":
        raise ConfigError("memory.storage=disk: weights that have learned are read into memory; expected memory")
    if memory.storage == "disk" and device_named(config.device).type != "cpu":
        raise ConfigError(
            f"memory.storage=disk: weights in files are computed on the processor; expected memory with device="
            f"{config.device}, or device=cpu"
        )
    if memory.head_rows is not None:
        _check_head_rows(config)
    if memory.precision == "tf32":
        check_tf32(device_named(config.device), "memory.precision")
    if memory.precision == "autocast":
        _check_autocast(config, device_named(config.device))
    if memory.fused and config.optimizer.clip_norm is not None:
        raise ConfigError(
            "memory.fused=true: gradients are freed before their total norm is known; expected "
            f"optimizer.clip_norm=none, got {config.optimizer.clip_norm:g}; optimizer.clip_each clips each tensor alone"
        )
    # bfloat16 has 8 bits: rounded to nearest, a small update of a weight is lost in every step
    if memory.precision == "bfloat16" and not config.optimizer.stochastic:
        raise ConfigError(
            "memory.precision=bfloat16: expected an optimizer that rounds stochastically, such as adam, got "
            f"{tag_of(config.optimizer)}"
        )


def _check_head_rows(config: RunConfig) -> None:
    if not config.task.by_rows:
        raise ConfigError(
            f"memory.head_rows: task={tag_of(config.task)} computes its loss from all outputs of the head; expected "
            "none, or a task that takes them row by row (by_rows = True in its class), such as language"
        )
    if config.rule.feeds and not config.rule.by_rows:
        raise ConfigError(
            f"memory.head_rows: rule={tag_of(config.rule)} reads the error as a whole; expected none, or a rule that "
            "works row by row, such as random or aligned"
        )


def check_tf32(device: torch.device, name: str) -> None:
    """Refuse tf32 where products have no such form.

    Raises:
        ConfigError: it is a processor or an mps device.
    """
    if device.type not in ("cuda", "xpu"):
        raise ConfigError(f"{name}=tf32: expected a cuda or xpu device, got {device}; say {name}=float32")


def _check_autocast(config: RunConfig, device: torch.device) -> None:
    """Refuse autocast where it cannot work.

    Raises:
        ConfigError: the device has no autocast to bfloat16, or layers get feedback of their own, which are linear maps
            in the type of their weights.
    """
    if not casts_to_bfloat16(device):
        raise ConfigError(
            f"memory.precision=autocast: expected a device that multiplies bfloat16, got {device}; say "
            "memory.precision=float32"
        )
    if config.feedback is not None and config.feedback.granularity == "linear":
        raise ConfigError(
            "memory.precision=autocast: expected feedback.granularity=block or sublayer, got linear, whose maps are "
            "computed in the type of the weights; or say memory.precision=float32"
        )


@contextmanager
def casting(precision: str, device: torch.device) -> Iterator[None]:
    """Within this context forward passes and losses are computed as the precision says: under autocast to bfloat16.

    Backward passes stay outside: autograd computes each step of theirs in the type that the forward pass had.
    """
    if precision != "autocast":
        yield
        return
    with torch.autocast(device.type, torch.bfloat16):
        yield


@contextmanager
def multiplying(precision: str) -> Iterator[None]:
    """Within this context float32 products are tf32 if the precision is, else in torch's current precision."""
    if precision != "tf32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def give_back_freed(memory: MemorySettings, *, from_bytes: int = 2**20) -> None:
    """Have glibc return freed tensors of `from_bytes` or more to the system at once, for the rest of the process.

    By default glibc keeps freed blocks of up to 32 MiB for reuse, and the memory is fragmented by tensors of other
    sizes: a streamed step of 98 million parameters peaked at 1.88 GB that way and peaks at 1.39 GB with this call
    (benchmarks/memory.py). Other C libraries return large blocks by themselves.
    """
    if memory.activations != "stream" and not memory.fused:
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):  # a C library without mallopt
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, from_bytes)


@contextmanager
def new_weights(memory: MemorySettings) -> Iterator[None]:
    """Within this context new weights are made in the run's precision and storage.

    Making them in float32 and in memory first would need the room that these settings are to save.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if memory.precision == "bfloat16" else torch.float32)
    try:
        with EmptyOnDisk() if memory.storage == "disk" else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)


def recompute_blocks(model: nn.Module, memory: MemorySettings) -> None:
    """Switch on the activation checkpointing of the model's own library, for backpropagation.

    Raises:
        ConfigError: the model has no such switch.
    """
    if memory.activations == "keep":
        return
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is None:
        raise ConfigError("memory.activations=recompute: this network cannot do it for backpropagation; expected keep")
    enable(activation_checkpointing_kwargs={"use_reentrant": False})


def fitted_optimizer(
    model: nn.Module, dfa: "DFA | None", config: RunConfig
) -> "torch.optim.Optimizer | FusedOptimizer":
    """The run's optimiser; embeddings, and the head if blocks learn by feedback, have learning rates of their own.

    Raises:
        ConfigError: the optimiser is none for this model.
    """
    shares, roles = rate_shares(model, dfa, config), config.optimizer.roles(model, config.network.blocks)

    def make(*parts: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups: list[Group] = [
            {"params": part, "rate_share": shares.get(part[0], 1.0), "role": roles.get(part[0], "")} for part in parts
        ]
        optimizer = config.optimizer.build(groups, stochastic=config.memory.precision == "bfloat16")
        return keep_on_disk(optimizer) if config.memory.storage == "disk" else optimizer

    if config.memory.fused:
        from odfa.engine import fuse_optimizer

        return fuse_optimizer(model, lambda one: make(list(one)), clip_each=config.optimizer.clip_each)
    # one group per share and role, not per parameter: torch's fused AdamW updates a whole group in one call
    parts: dict[tuple[float, str], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        parts.setdefault((shares.get(parameter, 1.0), roles.get(parameter, "")), []).append(parameter)
    return make(*parts.values())


def rate_shares(model: nn.Module, dfa: "DFA | None", config: RunConfig) -> dict[Tensor, float]:
    """Weight → its share of the learning rate, for embeddings and for the head if blocks learn by feedback."""
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    shares = dict.fromkeys(embeddings, config.optimizer.embedding_share)
    if dfa is None or config.feedback is None:
        return shares
    # the head comes last: if it is tied to the embedding, the head's share counts
    return shares | dict.fromkeys(dfa.tap.module.parameters(), config.feedback.head_share)


def check_shares(model: nn.Module, config: RunConfig) -> None:
    """Refuse a share of the rate for embeddings where there are none.

    Raises:
        SettingError: the network has no embedding.
    """
    has = config.optimizer.embedding_share == 1 or any(isinstance(module, nn.Embedding) for module in model.modules())
    told = f"nothing set, as network={tag_of(config.network)} has no embeddings"
    require(has, "optimizer.embedding_share", told, config.optimizer.embedding_share)


def set_rate(group: dict[str, object], rate: float) -> None:
    """Set the learning rate of a parameter group; torchao keeps it in a tensor, which must be changed in place."""
    kept = group["lr"]
    if isinstance(kept, Tensor):
        kept.fill_(rate)
    else:
        group["lr"] = rate
