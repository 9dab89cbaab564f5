"""torch's random state on the processor and on accelerators: read, put back, forked."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def state_on(device: torch.device) -> Tensor:
    """The random state of an accelerator."""
    # mps has one state, not one for each of several devices, and takes no argument; `fork_rng` gives it one
    found: Tensor = torch.mps.get_rng_state() if device.type == "mps" else _module(device).get_rng_state(device)
    return found


def put_back(device: torch.device, state: Tensor) -> None:
    """Set what `state_on` returned."""
    torch.mps.set_rng_state(state) if device.type == "mps" else _module(device).set_rng_state(state, device)


@contextmanager
def forked(devices: Iterable[torch.device]) -> Iterator[None]:
    """Inside, numbers may be drawn on the processor and on these devices; afterwards all go on as if none had been."""
    before = {device: state_on(device) for device in devices if device.type not in ("cpu", "meta")}
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for device, state in before.items():
                put_back(device, state)


def _module(device: torch.device) -> Any:
    return getattr(torch, device.type)
