"""Transforms whose energy is right, and the pupil that twin and demodulator share."""

import math

import numpy as np
import pytest
import torch

from odfa import fourier
from odfa.demodulate import OffAxis
from odfa.errors import Incompatible
from odfa.flow import View
from odfa.keys import torch_generator


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def noise(shape: tuple[int, ...], dtype: torch.dtype = torch.complex64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch_generator(0))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("side", [256, 2048])
def test_energy_is_conserved_where_the_plain_call_fails(side):
    """torch 2.13 scales the plain calls twice at 2048 x 2048 complex64 on two threads (pytorch/pytorch#169670)."""
    field_PQ = noise((side, side))
    energy = field_PQ.abs().double().square().sum()
    for transform in (fourier.fft2, fourier.ifft2):
        assert transform(field_PQ).abs().double().square().sum() / energy == pytest.approx(1, abs=1e-4)
    back_PQ = fourier.ifft2(fourier.fft2(field_PQ))
    assert (back_PQ - field_PQ).abs().max() < 1e-4
    assert torch.equal(noise((side, side)), field_PQ)  # the argument is left alone


@pytest.mark.usefixtures("two_threads")
def test_elements_at_the_faulty_size_equal_numpys():
    field_PQ = noise((2048, 2048))
    expected_PQ = np.fft.fft2(field_PQ.numpy().astype(np.complex128), norm="ortho")
    assert np.abs(fourier.fft2(field_PQ).numpy() - expected_PQ).max() < 1e-4 * np.abs(expected_PQ).max()
    expected_PQ = np.fft.ifft2(field_PQ.numpy().astype(np.complex128), norm="ortho")
    assert np.abs(fourier.ifft2(field_PQ).numpy() - expected_PQ).max() < 1e-4 * np.abs(expected_PQ).max()


@pytest.mark.usefixtures("two_threads")
def test_the_demodulators_own_transform_is_right_at_the_faulty_size():
    from odfa.demodulate.off_axis import _gather

    image_PQ = noise((2048, 2048), torch.float32)
    expected_PQ = np.fft.fft2(image_PQ.numpy().astype(np.float64), norm="ortho")
    bins_M = torch.randint(2048 * 2048, (5000,), generator=torch_generator(1))
    found_M = _gather(image_PQ[None], bins_M)[0].numpy()
    assert np.abs(found_M - expected_PQ.ravel()[bins_M.numpy()]).max() < 1e-4 * np.abs(expected_PQ[1:, 1:]).max()


@pytest.mark.parametrize("shape", [(16, 16), (18, 40), (15, 21)])
def test_pupil_is_the_disc_counted_one_by_one(shape):
    view = View(shape=shape, pupil_cpp=0.2)
    rows_M, cols_M = fourier.pupil_bins(view)
    frequencies = [[k / size if k < (size + 1) // 2 else (k - size) / size for k in range(size)] for size in shape]
    inside = {
        (round(p * shape[0]), round(q * shape[1]))
        for p in frequencies[0]
        for q in frequencies[1]
        if math.hypot(p, q) <= 0.2 + 1e-12
    }
    assert set(zip(rows_M.tolist(), cols_M.tolist(), strict=True)) == inside
    radius_M = ((rows_M / shape[0]).square() + (cols_M / shape[1]).square()).sqrt()
    assert (radius_M.diff() >= -1e-6).all()
    assert (rows_M[0], cols_M[0]) == (0, 0)


def test_orders_are_apart_up_to_eight_point_one_percent_of_the_pixels():
    """Largest pupil whose orders do not overlap, searched, against sqrt(2)/2 / (3 + sqrt(2)) = 0.160."""
    apart = []
    for pupil_cpp in np.arange(0.10, 0.20, 0.002):
        carrier = 0.5 - pupil_cpp
        view = View(shape=(480, 480), carrier_cpp=(carrier - 1 / 480,) * 2, pupil_cpp=float(pupil_cpp))
        if not fourier.orders_overlap(view):
            apart.append((float(pupil_cpp), len(fourier.pupil_bins(view)[0]) / view.num_pixels))
    assert max(apart)[0] == pytest.approx(0.160, abs=0.004)
    assert max(share for _, share in apart) <= 0.081


def test_views_without_a_tilted_reference_are_refused():
    with pytest.raises(Incompatible, match="pupil"):
        fourier.pupil_bins(View(shape=(4, 4)))
    with pytest.raises(Incompatible, match="carrier"):
        fourier.carrier_bin(View(shape=(4, 4)))
    with pytest.raises(Incompatible, match="tilted reference"):
        OffAxis().roi(5, View(shape=(100, 100)))
