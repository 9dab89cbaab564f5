"""What a forward pass was given, to run its model once more as it ran."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from odfa.keys import forked, put_back, state_on


class Pass:
    """Arguments and random state of a forward pass, to run the model once more as it ran."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The model is about to run on these arguments."""
        self.args, self.kwargs = args, kwargs
        self._random_state = torch.get_rng_state()
        tensors = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        devices = {tensor.device for tensor in tensors if tensor.device.type not in ("cpu", "meta")}
        self._device_states = {device: state_on(device) for device in devices}

    @contextmanager
    def same_draws(self) -> Iterator[None]:
        """Dropout draws what it drew before."""
        with forked(self._device_states):
            torch.set_rng_state(self._random_state)
            for device, state in self._device_states.items():
                put_back(device, state)
            yield
