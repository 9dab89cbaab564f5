"""What a forward pass was given, to run its model once more as it ran."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import get_device_states, set_device_states


class Pass:
    """Arguments and random state of a forward pass, to run the model once more as it ran."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The model is about to run on these arguments."""
        self.args, self.kwargs = args, kwargs
        self._random_state = torch.get_rng_state()
        self._device_states = get_device_states(*args, *kwargs.values())

    @contextmanager
    def same_draws(self) -> Iterator[None]:
        """Dropout draws what it drew before."""
        devices, states = self._device_states
        with torch.random.fork_rng(devices=devices):
            torch.set_rng_state(self._random_state)
            set_device_states(devices, states)
            yield
