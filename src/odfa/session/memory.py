"""What a step keeps in memory, and the optimisers that fit it."""

import contextlib
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from odfa.errors import ConfigError
from odfa.session.config import MemorySettings, RunConfig
from odfa.session.disk import EmptyOnDisk, keep_on_disk
from odfa.settings import tag_of

if TYPE_CHECKING:
    from odfa.engine import DFA, FusedOptimizer

_M_MMAP_THRESHOLD = -3
"""Number of the option in glibc's malloc.h."""


def check_memory(config: RunConfig) -> None:
    """Refuse settings of memory that the method or the optimiser cannot serve.

    Raises:
        ConfigError: streaming by backpropagation, clipping with fused updates, momentum in bfloat16.
    """
    memory = config.memory
    if memory.activations == "stream" and not config.rule.cuts:
        raise ConfigError(
            "memory.activations=stream: backpropagation learns from the last block to the first, expected recompute"
        )
    if config.network.learned and memory.storage == "disk":
        raise ConfigError("memory.storage=disk: weights that have learned are read into memory, expected memory")
    if memory.fused and config.optimizer.clip_norm is not None:
        raise ConfigError(
            "memory.fused=true: gradients are gone before their norm is known, expected optimizer.clip_norm=none and "
            f"perhaps clip_each, got clip_norm={config.optimizer.clip_norm:g}"
        )
    if memory.precision == "bfloat16" and not config.optimizer.stochastic:
        raise ConfigError(
            "memory.precision=bfloat16: expected an optimizer that rounds stochastically, such as adam, got "
            f"{tag_of(config.optimizer)}"
        )


def give_back_freed(memory: MemorySettings, *, from_bytes: int = 2**20) -> None:
    """Have glibc return freed tensors of that size to the system at once, for the rest of the process.

    Other C libraries do so by themselves. glibc keeps freed blocks of up to 32 MiB for later and lays tensors of other
    sizes beside them: a streamed step of 98 million parameters peaked at 1.88 GB that way and peaks at 1.39 GB now
    (benchmarks/memory.py).
    """
    if memory.activations != "stream" and not memory.fused:
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, from_bytes)


@contextmanager
def new_weights(memory: MemorySettings) -> Iterator[None]:
    """New weights have the run's precision and place inside: they never exist in or at another one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, memory.precision))
    try:
        with EmptyOnDisk() if memory.storage == "disk" else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)


def recompute_blocks(model: nn.Module, memory: MemorySettings) -> None:
    """Activation checkpointing for backpropagation, as the model's library does it.

    Raises:
        ConfigError: the model has none.
    """
    if memory.activations == "keep":
        return
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is None:
        raise ConfigError("memory.activations=recompute: this network cannot do it for backpropagation, expected keep")
    enable(activation_checkpointing_kwargs={"use_reentrant": False})


def fitted_optimizer(
    model: nn.Module, dfa: "DFA | None", config: RunConfig
) -> "torch.optim.Optimizer | FusedOptimizer":
    """The run's optimiser; embeddings and, where blocks learn by feedback, the head have their own shares of the
    rate."""
    shares = rate_shares(model, dfa, config)

    def make(*parts: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": part, "rate_share": shares.get(part[0], 1.0)} for part in parts]
        optimizer = config.optimizer.build(groups, stochastic=config.memory.precision == "bfloat16")
        return keep_on_disk(optimizer) if config.memory.storage == "disk" else optimizer

    if config.memory.fused:
        from odfa.engine import fuse_optimizer

        return fuse_optimizer(model, lambda one: make(list(one)), clip_each=config.optimizer.clip_each)
    parts: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        parts.setdefault(shares.get(parameter, 1.0), []).append(parameter)
    return make(*parts.values())


def rate_shares(model: nn.Module, dfa: "DFA | None", config: RunConfig) -> dict[Tensor, float]:
    """Shares of the learning rate that are not 1: of embeddings, then of a head where blocks learn by feedback."""
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    shares = dict.fromkeys(embeddings, config.optimizer.embedding_share)
    if dfa is None or config.feedback is None:
        return shares
    return shares | dict.fromkeys(dfa.tap.module.parameters(), config.feedback.head_share)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of a parameter group; torchao keeps it in a tensor that must stay the same one."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
