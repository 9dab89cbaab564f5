"""Encoders (data to bits) and decoders (outputs of bit planes to outputs of numbers), names and arguments as there.

Arrays in, arrays out; tensors in, tensors out. Shape letters: `N` samples · `D` features · `b` bits.
"""

import functools
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch

from odfa.compat.lightonml.inputs import Data, as_array
from odfa.errors import ConfigError


def _keeps_type(transform: Callable[[Any, np.ndarray], np.ndarray]) -> Callable[[Any, Any], Any]:
    @functools.wraps(transform)
    def wrapper(self: Any, X: Data) -> Any:
        array = as_array(X)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ConfigError("expected finite numbers, got NaN or infinity")
        output = transform(self, array)
        return torch.from_numpy(np.array(output)) if isinstance(X, torch.Tensor) else output

    return wrapper


class BaseTransformer:
    """Base of encoders and decoders: a `fit` that learns nothing, and `fit_transform`."""

    def fit(self, X: Data, y: object = None) -> Self:
        """Return the transformer as it is: there is nothing to learn from the data."""
        return self

    def transform(self, X: Data) -> Any:
        """Encode data to bits, or decode outputs; every subclass defines which."""
        raise NotImplementedError

    def fit_transform(self, X: Data, y: object = None) -> Any:
        """`fit` on X, then `transform` of X."""
        return self.fit(X, y).transform(X)


class NoEncoding(BaseTransformer):
    """Encoder of data that are bits already: returns them unchanged."""

    def transform(self, X: Data) -> Any:
        """X itself, unchanged."""
        return X


class NoDecoding(BaseTransformer):
    """Decoder that returns outputs unchanged."""

    def transform(self, X: Data) -> Any:
        """X itself, unchanged."""
        return X


class BinaryThresholdEncoder(BaseTransformer):
    """1[x > threshold], or < if not greater_is_one; "auto": the median of each feature, learnt by `fit`."""

    def __init__(self, threshold_enc: float | str = "auto", greater_is_one: bool = True) -> None:
        if isinstance(threshold_enc, str) and threshold_enc != "auto":
            raise ConfigError(f"threshold_enc must be a number or 'auto', got {threshold_enc!r}")
        self.threshold_enc: Any = threshold_enc
        self.greater_is_one = greater_is_one

    def fit(self, X: Data, y: object = None) -> Self:
        """Learn the medians if the threshold is "auto"."""
        if isinstance(self.threshold_enc, str):
            self.threshold_enc = np.median(as_array(X), axis=0)
        return self

    @_keeps_type
    def transform(self, X: np.ndarray) -> np.ndarray:
        """Bits of X, 0 or 1, as uint8."""
        if isinstance(self.threshold_enc, str):
            raise ConfigError("threshold_enc='auto': call fit before transform")
        above = np.greater if self.greater_is_one else np.less
        bits: np.ndarray = above(X, self.threshold_enc).astype(np.uint8)
        return bits


class MultiThresholdEncoder(BaseTransformer):
    """One bit per threshold that a value exceeds: a thermometer code of n_bins - 1 bits, threshold by threshold."""

    def __init__(self, thresholds: Any = "linspace", n_bins: int = 8, columnwise: bool = False) -> None:
        if isinstance(thresholds, str):
            if thresholds not in ("linspace", "quantiles"):
                raise ConfigError(f"thresholds must be numbers, 'linspace' or 'quantiles', got {thresholds!r}")
            self.n_bins = n_bins
        else:
            thresholds = np.asarray(thresholds)
            if thresholds.ndim != 1 + columnwise:
                raise ConfigError(f"expected thresholds of {1 + columnwise} dimensions, got {thresholds.ndim}")
            self.n_bins = thresholds.shape[-1] + 1
        self.thresholds, self.columnwise = thresholds, columnwise

    def fit(self, X: Data, y: object = None) -> Self:
        """Place the thresholds: evenly over the range, or at the quantiles."""
        if isinstance(self.thresholds, str):
            array = as_array(X)
            place = self._evenly if self.thresholds == "linspace" else self._at_quantiles
            self.thresholds = np.stack([place(column) for column in array.T]) if self.columnwise else place(array)
        return self

    def _evenly(self, values: np.ndarray) -> np.ndarray:
        return np.linspace(values.min(), values.max(), self.n_bins + 1)[1:-1]

    def _at_quantiles(self, values: np.ndarray) -> np.ndarray:
        shares = np.arange(1, self.n_bins) / self.n_bins
        found: np.ndarray = np.quantile(values, shares, method="midpoint")
        return found

    @_keeps_type
    def transform(self, X: np.ndarray) -> np.ndarray:
        """Bits, uint8 (N, D (n_bins - 1)): all features for the first threshold, then for the second, …"""
        if isinstance(self.thresholds, str):
            raise ConfigError("call fit before transform, or give the thresholds")
        above = [threshold < X for threshold in np.moveaxis(self.thresholds, -1, 0)]
        return np.concatenate(above, axis=-1).astype(np.uint8)


class SequentialBaseTwoEncoder(BaseTransformer):
    """Levels 0 … n - 1 in base 2, the bit of weight 2^k repeated 2^k times: 5 becomes 1111 00 1."""

    def __init__(self, n_gray_levels: int = 16) -> None:
        if not isinstance(n_gray_levels, int) or not 2 <= n_gray_levels <= 256 or n_gray_levels & (n_gray_levels - 1):
            raise ConfigError(f"n_gray_levels must be a power of 2 from 2 to 256, got {n_gray_levels!r}")
        self.n_gray_levels, self.n_bits = n_gray_levels, n_gray_levels.bit_length() - 1
        self.offset: float | None = None
        self.scale: float | None = None

    def fit(self, X: Data, y: object = None) -> Self:
        """Learn the least and the largest value, which become levels 0 and n - 1."""
        array = as_array(X).astype(np.float64)
        self.offset, self.scale = float(array.min()), float(array.max() - array.min())
        return self

    def normalize(self, X: np.ndarray) -> np.ndarray:
        """Values scaled to the levels of the encoder, uint8."""
        if self.offset is None or self.scale is None:
            raise ConfigError("call fit before transform")
        top = self.n_gray_levels - 1
        share = (X.astype(np.float64) - self.offset) / (self.scale or 1.0)
        return np.clip(np.round(top * share), 0, top).astype(np.uint8)

    @_keeps_type
    def transform(self, X: np.ndarray) -> np.ndarray:
        """Bits, uint8 (N, D (n - 1))."""
        bits_NDb = np.unpackbits(self.normalize(X)[:, :, None], axis=2)[:, :, 8 - self.n_bits :]
        repeats = 2 ** np.arange(self.n_bits)[::-1]
        return np.repeat(bits_NDb, repeats, axis=2).reshape(len(X), -1)


class ConcatenatedBitPlanEncoder(BaseTransformer):
    """Bits of unsigned integers side by side, from the highest; the first `starting_bit` are left out.

    Integers of several bytes go byte by byte as they lie in memory (lowest byte first on common machines), as there.
    """

    def __init__(self, n_bits: int = 8, starting_bit: int = 0) -> None:
        if n_bits <= 0 or starting_bit < 0:
            raise ConfigError(f"expected n_bits > 0 and starting_bit >= 0, got {n_bits} and {starting_bit}")
        self.n_bits, self.starting_bit = n_bits, starting_bit

    @_keeps_type
    def transform(self, X: np.ndarray) -> np.ndarray:
        """Bits, uint8 (N, D b): all bits of the first feature, then of the second, …"""
        if not np.issubdtype(X.dtype, np.unsignedinteger):
            raise ConfigError(f"expected unsigned integers, got {X.dtype}")
        last = self.n_bits + self.starting_bit
        if last > 8 * X.dtype.itemsize:
            raise ConfigError(f"n_bits + starting_bit = {last} exceed the {8 * X.dtype.itemsize} bits of {X.dtype}")
        bits_NDb = np.unpackbits(np.ascontiguousarray(X)[:, :, None].view(np.uint8), axis=2)
        return bits_NDb[:, :, self.starting_bit : last].reshape(len(X), -1)


class ConcatenatingBitPlanDecoder(BaseTransformer):
    """Outputs of n_bits planes of each sample side by side, plane k weighed by decoding_decay^k."""

    def __init__(self, n_bits: int = 8, decoding_decay: float = 0.5) -> None:
        self.n_bits, self.decoding_decay = n_bits, decoding_decay

    @_keeps_type
    def transform(self, X: np.ndarray) -> np.ndarray:
        """float32 (N, b M) of outputs (N b, M)."""
        planes_NbM = _planes(X, self.n_bits)
        weight_b = self.decoding_decay ** np.arange(self.n_bits)
        weighed: np.ndarray = (planes_NbM * weight_b[:, None]).reshape(len(planes_NbM), -1).astype(np.float32)
        return weighed


class SeparatedBitPlanEncoder(BaseTransformer):
    """Bit planes of |x| / max|x|, highest first, as samples of their own; positive planes first, then negative ones."""

    def __init__(self, precision: int = 6) -> None:
        if not 1 <= precision <= 8:
            raise ConfigError(f"precision must be from 1 to 8 bits, got {precision!r}")
        self.precision = precision
        self.magnitude: tuple[float, float] = (0.0, 0.0)

    def _magnitude(self, values: np.ndarray) -> float:
        """Value of a full scale: the largest one, or for integers a power of two steps, so that they stay exact."""
        top = float(values.max())
        if top <= 0 or not np.issubdtype(values.dtype, np.integer):
            return max(top, 0.0)
        shift = self.precision - float(np.ceil(np.log2(top + 1)))
        return float((2**self.precision - 1) * 0.5**shift)

    def _bits(self, values: np.ndarray, magnitude: float) -> np.ndarray:
        share = np.clip(values.astype(np.float64) / magnitude, 0, 1)
        level_ND = np.floor(share * (2**self.precision - 1) + 0.5).astype(np.uint8)
        bits_NbD = np.unpackbits(level_ND[:, None], axis=1)[:, 8 - self.precision :]
        return bits_NbD.reshape(-1, *values.shape[1:])

    @_keeps_type
    def transform(self, X: np.ndarray) -> np.ndarray:
        """Bits, uint8 (sides N b, D)."""
        if np.issubdtype(X.dtype, np.unsignedinteger):
            X = X.astype(np.int64)
        full = (1 - 0.5**self.precision) * 2
        sides = [(side, self._magnitude(side)) for side in (X, -X)]
        self.magnitude = (sides[0][1] / full, sides[1][1] / full)
        lit = [self._bits(values, magnitude) for values, magnitude in sides if magnitude > 0]
        return np.concatenate(lit) if lit else self._bits(X, 1.0)

    def get_params(self) -> dict[str, float]:
        """Arguments of the matching decoder: precision, and magnitudes of the positive and the negative side."""
        return {"precision": self.precision, "magnitude_p": self.magnitude[0], "magnitude_n": self.magnitude[1]}


class SeparatedBitPlanDecoder(BaseTransformer):
    """Outputs of numbers from outputs of their planes: sum_k decay^k y_k, positive less negative."""

    def __init__(
        self, precision: int, magnitude_p: float = 1, magnitude_n: float = 0, decoding_decay: float = 0.5
    ) -> None:
        self.precision, self.decoding_decay = precision, decoding_decay
        self.magnitude_p, self.magnitude_n = magnitude_p, magnitude_n

    @_keeps_type
    def transform(self, X: np.ndarray) -> np.ndarray:
        """(N, M) of outputs (sides N b, M)."""
        scales = [s for s in (self.magnitude_p, -self.magnitude_n) if s]
        weight_b = self.decoding_decay ** np.arange(self.precision)
        planes = np.split(_planes(X, self.precision), max(1, len(scales)))
        sums = [np.einsum("nbm,b->nm", plane_NbM, weight_b) for plane_NbM in planes]
        total: np.ndarray = sum((s * y_NM for s, y_NM in zip(scales, sums, strict=False)), np.zeros_like(sums[0]))
        return total


def _planes(outputs: np.ndarray, bits: int) -> np.ndarray:
    if len(outputs) % bits:
        raise ConfigError(f"{len(outputs)} outputs are no multiple of {bits} bits; encoder and decoder must agree")
    return np.asarray(outputs, dtype=np.float64).reshape(-1, bits, outputs.shape[-1])
