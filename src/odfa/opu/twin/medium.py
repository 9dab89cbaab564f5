"""The scattering medium: a complex Gaussian transmission matrix, rebuilt from its key, stored only where small.

Thick scattering media have transmission matrices with independent circular Gaussian entries to good accuracy
(Popoff et al., Phys. Rev. Lett. 104, 100601 (2010)).
Shape letters: `F` patterns · `D` inputs · `M` optical modes · `m` modes of one chunk.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from odfa import arguments
from odfa.errors import ConfigError
from odfa.keys import mix, numpy_generator
from odfa.settings import Settings
from odfa.sparse import Few
from odfa.structured import Structured

CHUNK = 256
"""Modes drawn at a time: part of the key, never change it."""
_STREAM = int.from_bytes(b"medium")
_STRUCTURED_STREAM = int.from_bytes(b"layers")
_KERNEL_REACH = 4.0
"""Gaussian kernels are cut at this many standard deviations, where they have fallen to 3e-4."""
_CPU = torch.device("cpu")
_MOST_ENTRIES = 2**40
"""Entries of a dense matrix, 8.8 TB: more than any machine stores."""


@dataclass(frozen=True, kw_only=True)
class Medium(Settings):
    """Statistics of the scattering medium. By default all entries are independent, as behind thick white paint."""

    dense_entries: int = 2**25
    """Complex entries drawn and stored (8 bytes each); modes beyond dense_entries / D are structured, by fast
    transforms (`odfa.structured`)."""
    memory_inputs: float | None = None
    """Memory effect: inputs nearer than about this have correlated columns (Gaussian, standard deviation)."""
    grain_px: float | None = None
    """Speckle grain: camera pixels nearer than about this along a row have correlated fields; not for a tilted arm,
    whose pupil sets the grain. Gaussian, standard deviation."""

    def __post_init__(self) -> None:
        arguments.whole("dense_entries", self.dense_entries, 0, _MOST_ENTRIES)
        for name in ("memory_inputs", "grain_px"):
            if getattr(self, name) is not None:  # None: no correlation
                arguments.real(name, getattr(self, name), 0.0, 1000.0, open_low=True)


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


@dataclass
class Scatterer:
    """The medium for one number of inputs, with what has been drawn of it so far.

    The first `dense_modes` modes are dense, the others structured, so that the modes of a narrow demodulator
    are the first ones of a wide one.
    """

    seed: int
    num_inputs: int
    medium: Medium
    dtype: torch.dtype
    matrix_DM: Tensor | None = None
    """A complex transmission matrix to use in place of the keyed one."""
    _dense: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _structured: Structured | None = field(default=None, repr=False)

    @property
    def dense_modes(self) -> int:
        """Modes whose matrix is drawn and stored."""
        if self.matrix_DM is not None:
            return self.matrix_DM.shape[1]
        return self.medium.dense_entries // self.num_inputs // CHUNK * CHUNK

    def propagate(
        self, x_FD: Tensor, num_modes: int, *, grain: bool = True, few: Few | None = None
    ) -> tuple[Tensor, Tensor]:
        """Real and imaginary part (F, M) of the field A x in the first `num_modes` modes, x_FD real or boolean.

        `few` are the same rows, where they have few non-zeros.
        """
        # Inputs are smoothed before the matrix and modes after it: correlations of neighbours without a correlated
        # matrix, which could not be drawn chunk by chunk. A smoothed row of M modes takes k - 1 more drawn ones, since
        # the first modes must not depend on how many follow.
        grain_px = self.medium.grain_px if grain else None
        kernel_k = None if grain_px is None else _kernel(grain_px).to(x_FD.device, self.dtype)
        drawn = num_modes if kernel_k is None else num_modes + len(kernel_k) - 1
        if self.medium.memory_inputs is not None:
            reach_k = _kernel(self.medium.memory_inputs).to(x_FD.device, self.dtype)
            x_FD, few = smooth_inputs(x_FD.to(self.dtype), reach_k), None
        real_FM, imag_FM = self._fields(x_FD, drawn, few)
        if kernel_k is None:
            return real_FM, imag_FM
        kernel_k = kernel_k / torch.linalg.vector_norm(kernel_k)
        return smooth(real_FM, kernel_k), smooth(imag_FM, kernel_k)

    def _fields(self, x_FD: Tensor, num_modes: int, few: Few | None) -> tuple[Tensor, Tensor]:
        # real and imaginary parts are two real products: patterns are real, and half of a complex product is wasted
        parts = []
        dense = min(num_modes, self.dense_modes)
        if dense:
            real_DM, imag_DM = self._dense_up_to(dense, x_FD.device)
            if few is None:
                parts.append((x_FD @ real_DM[:, :dense], x_FD @ imag_DM[:, :dense]))
            else:
                parts.append((few.times(real_DM[:, :dense]), few.times(imag_DM[:, :dense])))
        if num_modes > dense:
            quadratures_FM2 = (
                self._beyond().project(x_FD.to(self.dtype), 2 * (num_modes - dense)).view(len(x_FD), -1, 2)
            )
            parts.append(tuple(0.5**0.5 * quadratures_FM2.select(2, part) for part in (0, 1)))
        if len(parts) == 1:
            return parts[0][0].contiguous(), parts[0][1].contiguous()
        return torch.cat([real for real, _ in parts], 1), torch.cat([imag for _, imag in parts], 1)

    def _dense_up_to(self, num_modes: int, device: torch.device = _CPU) -> tuple[Tensor, Tensor]:
        known = self._dense.get(device)
        if known is None or known[0].shape[1] < num_modes:
            if self.matrix_DM is not None:
                real_DM, imag_DM = self.matrix_DM.real, self.matrix_DM.imag
            else:
                real_DM, imag_DM = transmission(self.seed, self.num_inputs, num_modes)
            known = real_DM.to(device, self.dtype).contiguous(), imag_DM.to(device, self.dtype).contiguous()
            self._dense[device] = known
        return known

    def _beyond(self) -> Structured:
        """The structured matrix whose outputs 2 m and 2 m + 1 are the quadratures of mode m after the dense ones."""
        if self.matrix_DM is not None:
            raise ConfigError(f"the given matrix has {self.dense_modes} modes, more were asked for")
        if self._structured is None:
            self._structured = Structured(mix(_STRUCTURED_STREAM, self.seed), self.num_inputs)
        return self._structured


def later_seed(seed: int, epoch: int) -> int:
    """Key of the medium that has replaced the first one after `epoch` decorrelation times."""
    return seed if epoch == 0 else mix(_STREAM, seed, epoch)


def _kernel(width: float) -> Tensor:
    reach = max(1, math.ceil(_KERNEL_REACH * width))
    return torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / width).square())


def smooth(value_FM: Tensor, kernel_k: Tensor) -> Tensor:
    """Sliding weighted sum along the last axis, without padding: k - 1 values fewer."""
    # in float64 off the CPU: convolutions in float32 are rounded to 10 bits there (TF32) unless that is switched off
    dtype = value_FM.dtype if value_FM.is_cpu else torch.float64
    summed_FM: Tensor = torch.nn.functional.conv1d(value_FM[:, None].to(dtype), kernel_k[None, None].to(dtype))[:, 0]
    return summed_FM.to(value_FM.dtype)


def smooth_inputs(x_FD: Tensor, kernel_k: Tensor) -> Tensor:
    """Spread each input over its neighbours so that the columns of A K have unit variance, at the rim too."""
    # normalised by the kernel weight that lies inside: at the rim part of the kernel reaches beyond the inputs
    reach = len(kernel_k) // 2
    ones_1D = torch.nn.functional.pad(torch.ones_like(x_FD[:1]), (reach, reach))
    norm_1D = smooth(ones_1D, kernel_k.square()).sqrt()
    return smooth(torch.nn.functional.pad(x_FD / norm_1D, (reach, reach)), kernel_k)
