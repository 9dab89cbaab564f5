"""Weights and moments in memory-mapped files, for models larger than memory.

The operating system reads the pages of a block when the block runs, and writes changed pages back when it needs memory.
Each file is unlinked as soon as it is mapped, so its space is freed when the process ends, even if it is killed.
"""

import os
import tempfile
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from odfa.data import cache_folder
from odfa.errors import ConfigError

LARGE_BYTES = 2**20
"""Tensors below this size stay in memory: a file and a mapping for each would cost more than they save."""


class EmptyOnDisk(TorchFunctionMode):
    """Within this context `torch.empty` returns large tensors on disk, so new weights are never all in memory."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Iterable[object] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """What `func` returns; a large tensor from `torch.empty` is replaced by one on disk."""
        # torch's modules allocate their weights with torch.empty and then fill them, so replacing that call is enough
        made = func(*args, **(kwargs or {}))
        if func is torch.empty and isinstance(made, Tensor) and _is_large(made):
            return empty_on_disk(made)
        return made


def empty_on_disk(like: Tensor) -> Tensor:
    """A tensor of this shape and type, its content undefined, in a file of `cache_folder()`.

    Raises:
        ConfigError: the folder cannot be written or its disk is full.
    """
    folder, size = cache_folder(), like.numel() * like.element_size()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="weights-") as file:
            # reserve the space now: writing to a mapped page of a full disk would kill the process with SIGBUS
            os.posix_fallocate(file.fileno(), 0, size)
            mapped = torch.from_file(file.name, shared=True, size=like.numel(), dtype=like.dtype)
    except OSError as error:
        raise ConfigError(
            f"memory.storage=disk: no room for {size:,} bytes more in {folder}: {error.strerror}; free space or set "
            "XDG_CACHE_HOME to another folder"
        ) from error
    return mapped.view(like.shape)


def keep_on_disk(optimizer: Optimizer) -> Optimizer:
    """Move the optimiser's state to disk once it exists: after the first step, or after it was loaded."""

    def move(optimizer: Optimizer, *_: object) -> None:
        first_step.remove()  # torch creates the state in the first step; later steps change it in place
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and _is_large(value):
                    state[name] = empty_on_disk(value).copy_(value)

    first_step = optimizer.register_step_post_hook(move)
    optimizer.register_load_state_dict_post_hook(move)
    return optimizer


def _is_large(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.numel() * tensor.element_size() >= LARGE_BYTES
