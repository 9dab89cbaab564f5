"""Two-dimensional unitary Fourier transforms, and the pupil disc that twin and demodulator share.

torch 2.13 on CPU scales `fft2(norm="ortho")` and `ifft2` twice for 2048 x 2048 complex64 on two or more threads
(pytorch/pytorch#169670). The transforms here ask for the unscaled sums only and scale themselves.
Shape letters: `P Q` camera rows, columns · `M` modes.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from odfa.errors import Incompatible
from odfa.flow import View


def fft2(value_PQ: Tensor) -> Tensor:
    """Unitary transform over the last two axes: sum |F|^2 = sum |f|^2."""
    spectrum_PQ: Tensor = torch.fft.fft2(value_PQ, norm="backward")
    return spectrum_PQ.mul_(_unitary(value_PQ))


def ifft2(value_PQ: Tensor) -> Tensor:
    """Unitary inverse transform over the last two axes."""
    image_PQ: Tensor = torch.fft.ifft2(value_PQ, norm="forward")
    return image_PQ.mul_(_unitary(value_PQ))


def _unitary(value_PQ: Tensor) -> float:
    return 1.0 / math.sqrt(value_PQ.shape[-2] * value_PQ.shape[-1])


def carrier_bin(view: View) -> tuple[int, int]:
    """Fourier bin nearest to the carrier.

    Raises:
        Incompatible: the view has no carrier.
    """
    if view.carrier_cpp is None:
        raise Incompatible("off-axis holography needs an OPU whose reference arrives under an angle (a carrier)")
    return round(view.carrier_cpp[0] * view.shape[0]), round(view.carrier_cpp[1] * view.shape[1])


@lru_cache(maxsize=64)
def pupil_bins(view: View) -> tuple[Tensor, Tensor]:
    """Row and column (signed, 0 = zero frequency) of every Fourier bin in the pupil disc, from the centre outwards.

    Raises:
        Incompatible: the view has no pupil.
    """
    if view.pupil_cpp is None:
        raise Incompatible("off-axis holography needs an OPU that states its pupil in cycles per pixel")
    frequency_P, frequency_Q = (torch.fft.fftfreq(size, dtype=torch.float64) for size in view.shape)
    radius_PQ = (frequency_P[:, None].square() + frequency_Q[None, :].square()).sqrt_()
    inside = (radius_PQ.flatten() <= view.pupil_cpp).nonzero().squeeze(1)
    # stable: many bins have equal radii, and modes are numbered by this order, which must be the same on every machine
    inside = inside[radius_PQ.flatten()[inside].argsort(stable=True)]
    rows, cols = inside // view.shape[1], inside % view.shape[1]
    return rows - view.shape[0] * (rows > view.shape[0] // 2), cols - view.shape[1] * (cols > view.shape[1] // 2)


@lru_cache(maxsize=64)
def pupil_index(view: View, device: torch.device) -> Tensor:
    """Index of every bin of `pupil_bins` in the flattened (P, Q) spectrum, kept on the device.

    Raises:
        Incompatible: the view has no pupil.
    """
    return flat_index(*pupil_bins(view), view.shape).to(device)


def flat_index(rows_M: Tensor, cols_M: Tensor, shape: tuple[int, int]) -> Tensor:
    """Index into a flattened (P, Q) spectrum of signed bins, wrapped round."""
    return (rows_M % shape[0]) * shape[1] + cols_M % shape[1]


def orders_overlap(view: View) -> bool:
    """True if the zero order (radius twice the pupil), the interference and its conjugate share a Fourier bin.

    They are apart if the carrier is three pupil radii from zero and one from the edge of the band; on the diagonal
    that allows a pupil of sqrt(2)/2 / (3 + sqrt(2)) = 0.160 cycles per pixel, hence pi 0.160^2 = 8.1 % of the pixels.
    """
    rows_M, cols_M = pupil_bins(view)
    row, col = carrier_bin(view)
    size = View(shape=view.shape, pupil_cpp=2 * (view.pupil_cpp or 0.0))
    zero = set(flat_index(*pupil_bins(size), view.shape).tolist())
    plus = set(flat_index(rows_M + row, cols_M + col, view.shape).tolist())
    minus = set(flat_index(-rows_M - row, -cols_M - col, view.shape).tolist())
    return bool(plus & zero or plus & minus)
