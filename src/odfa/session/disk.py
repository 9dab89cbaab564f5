"""Weights and moments in memory-mapped files, for models larger than memory.

The system reads the pages of a block when it runs and writes the changed ones back when it needs the room. The files
have no names: they are gone with the process, however it ends.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from odfa.data import cache_folder
from odfa.errors import ConfigError

LARGE_BYTES = 2**20
"""Smaller tensors stay in memory."""


class EmptyOnDisk(TorchFunctionMode):
    """Inside, what `torch.empty` makes lives on disk where it is large; new weights are never all in memory."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What `func` returns, on disk if it is new and large."""
        made = func(*args, **(kwargs or {}))
        return empty_on_disk(made) if func is torch.empty and _is_large(made) else made


def empty_on_disk(like: Tensor) -> Tensor:
    """A tensor of this shape and type, its content undefined, in a file of `cache_folder()`.

    Raises:
        ConfigError: the folder cannot be written or has no room.
    """
    folder, size = cache_folder(), like.numel() * like.element_size()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="weights-") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # without room a write to a mapped page would kill the process
            mapped = torch.from_file(file.name, shared=True, size=like.numel(), dtype=like.dtype)
    except OSError as error:
        raise ConfigError(
            f"memory.storage=disk: no room for {size:,} bytes more in {folder}: {error.strerror}; free space or set "
            "XDG_CACHE_HOME to another folder"
        ) from error
    return mapped.view(like.shape)


def keep_on_disk(optimizer: Optimizer) -> Optimizer:
    """Have the optimiser's state move to disk when it is made, in the first step, and when it is loaded."""

    def move(optimizer: Optimizer, *_: object) -> None:
        first_step.remove()
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and _is_large(value):
                    state[name] = empty_on_disk(value).copy_(value)

    first_step = optimizer.register_step_post_hook(move)
    optimizer.register_load_state_dict_post_hook(move)
    return optimizer


def _is_large(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.numel() * tensor.element_size() >= LARGE_BYTES
