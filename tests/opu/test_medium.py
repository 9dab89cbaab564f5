"""The transmission matrix: circular Gaussian, keyed, prefix-stable."""

import math

import pytest
import torch

from odfa.opu.twin.medium import CHUNK, transmission, transmission_chunk


def test_entries_are_circular_gaussian():
    real_DM, imag_DM = (part_DM.double() for part_DM in transmission(3, 200, 1000))
    count = real_DM.numel()
    for part_DM in (real_DM, imag_DM):
        assert abs(part_DM.mean()) < 4 * math.sqrt(0.5 / count)
        assert part_DM.square().mean() == pytest.approx(0.5, abs=4 * 0.5 * math.sqrt(2 / count))
        assert part_DM.pow(4).mean() / part_DM.square().mean() ** 2 == pytest.approx(3, abs=4 * math.sqrt(96 / count))
    assert abs((real_DM * imag_DM).mean()) < 4 * 0.5 / math.sqrt(count)


def test_singular_values_follow_marchenko_pastur():
    real_DM, imag_DM = transmission(0, 100, 400)
    singular = torch.linalg.svdvals(torch.complex(real_DM, imag_DM)) / math.sqrt(400)
    assert singular.min() == pytest.approx(1 - math.sqrt(100 / 400), abs=0.04)
    assert singular.max() == pytest.approx(1 + math.sqrt(100 / 400), abs=0.04)


def test_first_modes_do_not_depend_on_how_many_follow():
    narrow, wide = transmission(1, 7, 10), transmission(1, 7, 2 * CHUNK + 3)
    for narrow_DM, wide_DM in zip(narrow, wide, strict=True):
        assert wide_DM.shape == (7, 2 * CHUNK + 3)
        assert torch.equal(narrow_DM, wide_DM[:, :10])
    assert torch.equal(wide[1][:, CHUNK : 2 * CHUNK], transmission_chunk(1, 7, 1)[1])


def test_seed_inputs_and_chunk_are_keys():
    first = transmission_chunk(0, 5, 0)[0]
    for other in (transmission_chunk(1, 5, 0)[0], transmission_chunk(0, 6, 0)[0][:5], transmission_chunk(0, 5, 1)[0]):
        assert (first == other).float().mean() < 0.01


def test_golden_values():
    real_DM, imag_DM = transmission(0, 10, 3)
    assert real_DM[0].tolist() == [-0.7089118361473083, -0.2501143515110016, 0.9542372822761536]
    assert imag_DM[0].tolist() == [0.47173377871513367, -0.3128613531589508, 1.094713568687439]
