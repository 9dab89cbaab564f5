"""The scattering medium: a complex Gaussian transmission matrix, rebuilt from its key, stored only where small.

Thick scattering media have transmission matrices with independent circular Gaussian entries to good accuracy
(Popoff et al., Phys. Rev. Lett. 104, 100601 (2010)).
Shape letters: `F` patterns · `D` inputs · `M` optical modes · `m` modes of one chunk · `J` points of a transform.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from odfa.errors import ConfigError
from odfa.keys import mix, numpy_generator

CHUNK = 256
"""Modes drawn at a time: part of the key, never change it."""
_STREAM = int.from_bytes(b"medium")
_STRUCTURED_STREAM = int.from_bytes(b"layers")
_LEAST_POINTS = 4096
"""Transforms of fewer points would not mix enough for their entries to look Gaussian."""
_LAYERS = 4
_KERNEL_REACH = 4.0
"""Gaussian kernels are cut at this many standard deviations, where they have fallen to 3e-4."""


@dataclass(frozen=True, kw_only=True)
class Medium:
    """What kind of glass. The defaults are thick, perfectly mixing white paint."""

    dense_entries: int = 2**25
    """Complex entries drawn and stored (8 bytes each); modes beyond dense_entries / D come from fast transforms."""
    memory_inputs: float | None = None
    """Memory effect: inputs nearer than about this have correlated columns (Gaussian, standard deviation)."""
    grain_px: float | None = None
    """Speckle grain: camera pixels nearer than about this along a row have correlated fields; not for a tilted arm,
    whose pupil sets the grain. Gaussian, standard deviation."""

    def __post_init__(self) -> None:
        if isinstance(self.dense_entries, bool) or not isinstance(self.dense_entries, int) or self.dense_entries < 0:
            raise ConfigError(f"dense_entries must be a number of matrix entries, 0 or more; got {self.dense_entries}")
        for name in ("memory_inputs", "grain_px"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1000:
                raise ConfigError(f"{name} must be in (0, 1000], or None for no correlation; got {value!r}")


def transmission_chunk(seed: int, num_inputs: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part, each (D, 256) float32, of the transmission to modes 256 chunk … 256 chunk + 255.

    A_dm ~ CN(0, 1): E|A|^2 = 1, so that n lit inputs give every mode a field of mean square n.
    """
    generator = numpy_generator(_STREAM, seed, num_inputs, chunk)
    normal_2Dm = torch.from_numpy(generator.standard_normal((2, num_inputs, CHUNK), dtype="float32"))
    real_Dm, imag_Dm = normal_2Dm.mul_(0.5**0.5)
    return real_Dm, imag_Dm


def transmission(seed: int, num_inputs: int, num_modes: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of A_DM for the first `num_modes` modes, whatever the number of modes that follow."""
    chunks = [transmission_chunk(seed, num_inputs, k) for k in range(-(-num_modes // CHUNK))]
    real_DM, imag_DM = (torch.cat(parts, dim=1)[:, :num_modes].contiguous() for parts in zip(*chunks, strict=True))
    return real_DM, imag_DM


def layers(seed: int, num_inputs: int, block: int) -> tuple[Tensor, ...]:
    """Diagonals of the structured block number `block`, complex64, J >= D points each.

    A = sqrt(J) F D_3 F S D_2 F D_1 F D_0 with F the unitary Fourier transform, D_k random phases and S the singular
    values of a square Gaussian matrix (quarter circle law, shuffled), so that spectrum and entries are those of a
    Gaussian matrix. Without S all singular values of a full block would be 1; with one transform fewer on either side
    blocks of fewer inputs than points would have the spectrum of a Toeplitz matrix. Random numbers: 4 J instead of J^2.
    """
    points = max(_LEAST_POINTS, 1 << (num_inputs - 1).bit_length())
    generator = numpy_generator(_STRUCTURED_STREAM, seed, num_inputs, block)
    angles = (2 * math.pi * generator.random(points, dtype="float32") for _ in range(_LAYERS))
    phase = [torch.polar(torch.ones(points), torch.from_numpy(angle_J)) for angle_J in angles]
    singular_J = torch.from_numpy(generator.permutation(quarter_circle(points)))
    return phase[0], phase[1], phase[2] * singular_J, phase[3] * math.sqrt(points)


@lru_cache(maxsize=2)
def quarter_circle(points: int) -> np.ndarray:
    """Quantiles of p(s) = sqrt(4 - s^2) / pi on [0, 2]: singular values of a square matrix of variance 1 / J."""
    # s = 2 sin(theta / 2) turns the cumulative law into (theta + sin(theta)) / pi, monotone and easy to tabulate
    theta = np.linspace(0.0, math.pi, 2**15 + 1)
    middle = (np.arange(points) + 0.5) / points
    values = 2 * np.sin(np.interp(middle, (theta + np.sin(theta)) / math.pi, theta) / 2)
    return values.astype(np.float32)


def structured(x_FD: Tensor, diagonals: tuple[Tensor, ...]) -> Tensor:
    """Fields (F, J) of one structured block; x_FD real or complex, in the precision of the diagonals."""
    points = len(diagonals[0])
    y_FJ = torch.nn.functional.pad(x_FD.to(diagonals[0].dtype), (0, points - x_FD.shape[1]))
    for diagonal_J in diagonals:
        y_FJ = torch.fft.fft(y_FJ.mul_(diagonal_J), norm="backward")
        y_FJ.mul_(points**-0.5)  # scaled here: see odfa.fourier
    return y_FJ


@dataclass
class Scatterer:
    """The medium for one number of inputs, with what has been drawn of it so far.

    The first `dense_modes` modes are dense, the others structured in blocks, so that the modes of a narrow read-out
    are the first ones of a wide one.
    """

    seed: int
    num_inputs: int
    medium: Medium
    dtype: torch.dtype
    matrix_DM: Tensor | None = None
    """A complex transmission matrix to use in place of the keyed one."""
    _dense: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    _layers: dict[int, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    @property
    def dense_modes(self) -> int:
        """Modes whose matrix is drawn and stored."""
        if self.matrix_DM is not None:
            return self.matrix_DM.shape[1]
        return self.medium.dense_entries // self.num_inputs // CHUNK * CHUNK

    def propagate(self, x_FD: Tensor, num_modes: int, *, grain: bool = True) -> tuple[Tensor, Tensor]:
        """Real and imaginary part (F, M) of the field A x in the first `num_modes` modes, x_FD real."""
        grain_px = self.medium.grain_px if grain else None
        kernel_k = None if grain_px is None else _kernel(grain_px).to(self.dtype)
        drawn = num_modes if kernel_k is None else num_modes + len(kernel_k) - 1
        if self.medium.memory_inputs is not None:
            x_FD = smooth_inputs(x_FD, _kernel(self.medium.memory_inputs).to(self.dtype))
        real_FM, imag_FM = self._fields(x_FD, drawn)
        if kernel_k is None:
            return real_FM, imag_FM
        return smooth(real_FM, kernel_k / kernel_k.norm()), smooth(imag_FM, kernel_k / kernel_k.norm())

    def _fields(self, x_FD: Tensor, num_modes: int) -> tuple[Tensor, Tensor]:
        parts = []
        dense = min(num_modes, self.dense_modes)
        if dense:
            real_DM, imag_DM = self._dense_up_to(dense)
            parts.append((x_FD @ real_DM[:, :dense], x_FD @ imag_DM[:, :dense]))
        left, block = num_modes - dense, 0
        while left:
            y_FJ = structured(x_FD, self._diagonals(block))[:, :left]
            parts.append((y_FJ.real, y_FJ.imag))
            left, block = left - y_FJ.shape[1], block + 1
        if len(parts) == 1:
            return parts[0][0].contiguous(), parts[0][1].contiguous()
        return torch.cat([real for real, _ in parts], 1), torch.cat([imag for _, imag in parts], 1)

    def _dense_up_to(self, num_modes: int) -> tuple[Tensor, Tensor]:
        if self._dense is None or self._dense[0].shape[1] < num_modes:
            if self.matrix_DM is not None:
                real_DM, imag_DM = self.matrix_DM.real, self.matrix_DM.imag
            else:
                real_DM, imag_DM = transmission(self.seed, self.num_inputs, num_modes)
            self._dense = real_DM.to(self.dtype).contiguous(), imag_DM.to(self.dtype).contiguous()
        return self._dense

    def _diagonals(self, block: int) -> tuple[Tensor, ...]:
        if self.matrix_DM is not None:
            raise ConfigError(f"the given matrix has {self.dense_modes} modes, more were asked for")
        if block not in self._layers:
            wide = torch.complex128 if self.dtype == torch.float64 else torch.complex64
            drawn = layers(self.seed, self.num_inputs, block)
            self._layers[block] = tuple(diagonal_J.to(wide) for diagonal_J in drawn)
        return self._layers[block]


def later_seed(seed: int, epoch: int) -> int:
    """Key of the medium that has replaced the first one after `epoch` decorrelation times."""
    return seed if epoch == 0 else mix(_STREAM, seed, epoch)


def _kernel(width: float) -> Tensor:
    reach = max(1, math.ceil(_KERNEL_REACH * width))
    return torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / width).square())


def smooth(value_FM: Tensor, kernel_k: Tensor) -> Tensor:
    """Sliding weighted sum along the last axis, without padding: k - 1 values fewer."""
    return torch.nn.functional.conv1d(value_FM[:, None], kernel_k[None, None])[:, 0]


def smooth_inputs(x_FD: Tensor, kernel_k: Tensor) -> Tensor:
    """Spread each input over its neighbours so that the columns of A K have unit variance, at the rim too."""
    reach = len(kernel_k) // 2
    ones_1D = torch.nn.functional.pad(torch.ones_like(x_FD[:1]), (reach, reach))
    norm_1D = smooth(ones_1D, kernel_k.square()).sqrt()
    return smooth(torch.nn.functional.pad(x_FD / norm_1D, (reach, reach)), kernel_k)
