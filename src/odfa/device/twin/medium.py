"""The scattering medium: a complex Gaussian transmission matrix, rebuilt from its key.

Thick scattering media have transmission matrices with independent circular Gaussian entries to good accuracy
(Popoff et al., Phys. Rev. Lett. 104, 100601 (2010)).
Shape letters: `D` inputs · `M` optical modes · `m` modes of one chunk.
"""

import torch
from torch import Tensor

from odfa.keys import numpy_generator

CHUNK = 256
"""Modes drawn at a time: part of the key, never change it."""
_STREAM = int.from_bytes(b"medium")


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
