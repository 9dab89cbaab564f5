"""What a forward pass was given, to run its model once more as it ran."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from odfa.keys import forked, put_back, state_on


class Pass:
    """Arguments, random state and autocast of a forward pass, to run the model once more as it ran."""

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The model is about to run on these arguments."""
        self.args, self.kwargs = args, kwargs
        self._random_state = torch.get_rng_state()
        tensors = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        devices = {tensor.device for tensor in tensors if tensor.device.type not in ("cpu", "meta")}
        self._device_states = {device: state_on(device) for device in devices}
        kinds = {"cpu", *(device.type for device in devices)}
        self._cast = {kind: (torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in kinds}

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Dropout draws what it drew before, and what was cast is cast again, wherever backward is called."""
        with forked(self._device_states), ExitStack() as casting:
            for kind, (dtype, enabled) in self._cast.items():
                # without its cache: casts that were made while autograd was off lead to no weight
                casting.enter_context(torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False))
            torch.set_rng_state(self._random_state)
            for device, state in self._device_states.items():
                put_back(device, state)
            yield
