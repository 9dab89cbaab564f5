"""Inputs as that library takes them: arrays or tensors, vectors or batches, packed or not; checked to be bits."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from odfa.errors import ConfigError

Data = ArrayLike | Tensor
"""What methods take for X: an array, a tensor or nested lists."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Shape of one vector, (n,) or (rows, columns), and whether vectors come packed and one by one."""

    shape: tuple[int, ...]
    packed: bool
    online: bool

    @property
    def n_features(self) -> int:
        """Number of bits of one vector: the product of its shape."""
        return int(np.prod(self.shape))

    def bits(self, values: Data) -> tuple[Tensor, tuple[int, ...]]:
        """Bits (N, D) of everything handed in, and the leading shape to give back.

        Raises:
            ConfigError: another shape, an empty batch, or values that are not bits.
        """
        array = as_array(values)
        tail = (-(-self.n_features // 8),) if self.packed else self.shape
        lead = array.shape[: array.ndim - len(tail)]
        if array.shape[len(lead) :] != tail or array.ndim < len(tail):
            what = f"packed vectors of {tail[0]} bytes" if self.packed else f"vectors of shape {tail}"
            raise ConfigError(f"expected {what} or batches of them, got {array.shape}; call fit1d or fit2d anew")
        if array.size == 0:
            raise ConfigError(f"expected at least one vector, got an empty batch of shape {array.shape}")
        flat_ND = array.reshape(-1, int(np.prod(tail)))
        if self.packed:
            if array.dtype != np.uint8:
                raise ConfigError(f"packed input must be uint8, got {array.dtype}")
            flat_ND = np.unpackbits(flat_ND, axis=1)[:, : self.n_features]
        return torch.from_numpy(_checked(flat_ND)), lead


def traits_of(
    values: Data | None, n_features: int | tuple[int, ...] | None, *, packed: bool, online: bool, is_2d: bool
) -> Traits:
    """Traits from an example or from the number of features alone.

    Raises:
        ConfigError: neither is given, they contradict each other, or the shape is off.
    """
    if values is None and n_features is None:
        raise ConfigError("expected an input X or n_features, got neither")
    if n_features is not None:
        shape = tuple(int(n) for n in np.atleast_1d(n_features))
    else:
        array = as_array(values)
        if is_2d and packed:
            raise ConfigError("packed 2-D input needs n_features=(rows, columns), which the bytes do not tell")
        if array.ndim < 1 + is_2d:
            raise ConfigError(f"expected vectors of {1 + is_2d} dimensions, got an array of shape {array.shape}")
        shape = array.shape[array.ndim - 1 - is_2d :]
        shape = (8 * shape[0],) if packed else shape
    if len(shape) != 1 + is_2d or min(shape) < 1:
        raise ConfigError(f"expected {1 + is_2d} positive numbers of features, got {shape}")
    made = Traits(shape=shape, packed=packed, online=online)
    if values is not None:
        made.bits(values)
    return made


def as_array(values: object) -> np.ndarray:
    """A NumPy view of an array, tensor or list."""
    if isinstance(values, Tensor):
        array: np.ndarray = values.detach().cpu().numpy()
        return array
    return np.asarray(values)


def _checked(flat_ND: np.ndarray) -> np.ndarray:
    bits_ND: np.ndarray = flat_ND == 1
    wrong = ~bits_ND & (flat_ND != 0)
    if wrong.any():
        example = flat_ND[wrong].flat[0]
        raise ConfigError(
            f"expected bits, 0 or 1, got {example!r} among {flat_ND.dtype}; encode first, for instance with "
            "BinaryThresholdEncoder or SeparatedBitPlanEncoder"
        )
    return bits_ND
