"""Random numbers named by integer keys, so that every draw can be repeated and all random state is a few integers; and
torch's own random state, on the processor and on accelerators."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MASK_64 = 2**64 - 1


def mix(*parts: int) -> int:
    """Hash integers into one 63-bit seed by chained splitmix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    # not a sum or a product of the parts: neighbouring keys, such as seed and step, must give unrelated generators
    state = 0
    for part in parts:
        state = (state ^ (int(part) & _MASK_64)) + 0x9E3779B97F4A7C15 & _MASK_64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK_64
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK_64
        state ^= state >> 31
    return state >> 1


def torch_generator(*parts: int) -> torch.Generator:
    """Generator of the processor, seeded by the key `parts`; for orders, splits and patterns, drawn before a step.

    What is drawn in a step comes from `odfa.draws`, whose numbers are the same on every device.
    """
    return torch.Generator().manual_seed(mix(*parts))


def numpy_generator(*parts: int) -> np.random.Generator:
    """Philox generator keyed by `parts`; for matrices, whose entries must not depend on the CPU's vector width."""
    return np.random.Generator(np.random.Philox(key=[mix(*parts), mix(1, *parts)]))


def fingerprint(array: np.ndarray) -> str:
    """First 12 hex digits of the SHA-256 of an array's bytes: part of a projection's identity."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


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
