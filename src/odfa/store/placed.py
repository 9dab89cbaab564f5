"""Finished runs on a device: whatever reads them computes there, and is given and answered tensors of the processor."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from odfa.devices import device_named
from odfa.keys import forked
from odfa.session.config import RunConfig
from odfa.store.folder import read_config

_asked: ContextVar[str | None] = ContextVar("device of models that are loaded", default="cpu")


def device_of_run(config: RunConfig, asked: str | None) -> torch.device:
    """The device that is asked for, or where nobody asks the run's own.

    Raises:
        ConfigError: this machine has no such device.
    """
    if asked is not None:
        return device_named(asked, "see odfa env")
    return device_named(config.device, "the run was trained there; say device=cpu, or another one that is here")


@contextmanager
def loading_on(asked: str | None, run_dirs: Iterable[Path | str]) -> Iterator[None]:
    """Inside, `load_run` puts models on this device, or for None on the one that their run was trained on.

    Such a model is given tensors of the processor and answers with them; only what it computes in between is there.
    Random numbers of the device go on afterwards as if none had been drawn.

    Raises:
        ConfigError: this machine lacks the device of one of these runs. RunFolderError: not a run folder.
    """
    devices = {device_of_run(read_config(run_dir), asked) for run_dir in run_dirs}
    before = _asked.set(asked)
    try:
        with forked(devices):
            yield
    finally:
        _asked.reset(before)


def where_asked(model: nn.Module, config: RunConfig) -> nn.Module:
    """The model of a run where `loading_on` says, or else on the processor."""
    device = device_of_run(config, _asked.get())
    if device.type == "cpu":
        return model
    model.to(device)

    def there(_model: nn.Module, args: Any, words: Any) -> Any:
        return _moved(args, device), _moved(words, device)

    def back(_model: nn.Module, _args: Any, answer: Any) -> Any:
        return _moved(answer, torch.device("cpu"))

    model.register_forward_pre_hook(there, with_kwargs=True)
    model.register_forward_hook(back)
    return model


def _moved(values: Any, device: torch.device) -> Any:
    """Tensors in tuples, lists and mappings on the device; anything else, such as a cache of keys, as it is."""
    return tree_map(lambda one: one.to(device) if isinstance(one, Tensor) else one, values, is_leaf=_is_leaf)


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, tuple | list | dict)
