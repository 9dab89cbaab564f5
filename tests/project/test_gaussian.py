"""The keyed Gaussian: rebuilt bit for bit, prefix-stable, N(0, 1)."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa.draws import Draws
from odfa.errors import ConfigError, NonFinite
from odfa.keys import torch_generator
from odfa.project import Gaussian, GaussianSettings


def rows(num_samples: int, num_inputs: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(num_samples, num_inputs, generator=torch_generator(1), dtype=dtype)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 600), st.sampled_from([torch.float32, torch.float64]))
def test_projects_by_its_matrix(num_samples, num_inputs, num_outputs, dtype):
    gaussian = Gaussian(3).shaped(num_inputs, num_outputs)
    e_ND = rows(num_samples, num_inputs, dtype)
    p_NM = gaussian.project(e_ND)
    expected_NM = e_ND.double().numpy() @ gaussian.matrix().double().numpy()
    assert p_NM.dtype == dtype
    assert p_NM.shape == (num_samples, num_outputs)
    np.testing.assert_allclose(p_NM.double().numpy(), expected_NM, atol=1e-12 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("shape", [(1, 1), (10, 255), (10, 256), (33, 257), (700, 1000)])
def test_stored_and_redrawn_agree_bit_for_bit(shape):
    e_ND = rows(130, shape[0])
    stored, redrawn = (Gaussian(5, stored=s).shaped(*shape) for s in (True, False))
    assert torch.equal(stored.matrix(), redrawn.matrix())
    for _ in range(2):
        assert torch.equal(stored.project(e_ND), redrawn.project(e_ND))
    assert stored.identity == redrawn.identity


def test_wider_begins_with_narrower():
    narrow, wide = (Gaussian(0).shaped(12, width) for width in (300, 1000))
    assert torch.equal(narrow.matrix(), wide.matrix()[:, :300])
    assert narrow.identity == wide.identity


def test_a_stored_matrix_is_drawn_on_its_device(monkeypatch):
    seen, filled = [], Draws._filled
    gaussian = Gaussian(5).shaped(40, 700)

    def watched(self, law, rows, columns, first_row, device):
        seen.append((rows, columns, device.type))
        return filled(self, law, rows, columns, first_row, device)

    monkeypatch.setattr(Draws, "_filled", watched)
    for _ in range(2):
        assert gaussian.project(torch.zeros(3, 40, device="meta")).shape == (3, 700)
    assert seen == [(40, 700, "meta")]


def test_settings_choose_whether_it_is_stored():
    for stored in (True, False):
        assert GaussianSettings(seed=3, stored=stored).bare()._stored is stored


def test_codes_of_int8_are_answered_in_float32():
    codes_ND = torch.randint(-1, 2, (5, 300), dtype=torch.int8)
    for stored in (True, False):
        gaussian = Gaussian(5, stored=stored).shaped(300, 70)
        assert torch.equal(gaussian.project(codes_ND), gaussian.project(codes_ND.float()))


def test_golden_values():
    matrix_DM = Gaussian(0).shaped(10, 3).matrix()
    assert matrix_DM[0].tolist() == [-0.385893851518631, -1.0737566947937012, -0.1567544937133789]
    assert matrix_DM[9].tolist() == [1.9699681997299194, 0.05990425497293472, 0.6913697123527527]


def test_entries_are_standard_normal_and_uncorrelated():
    matrix_DM = Gaussian(8).shaped(500, 1000).matrix().double()
    count = matrix_DM.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert matrix_DM.pow(power).mean() == pytest.approx(moment, abs=4 * math.sqrt(variance / count))
    singular = torch.linalg.svdvals(matrix_DM) / math.sqrt(1000)
    assert singular.min() == pytest.approx(1 - math.sqrt(0.5), abs=0.02)
    assert singular.max() == pytest.approx(1 + math.sqrt(0.5), abs=0.02)


def test_identity_tells_keys_apart():
    shaped = [Gaussian(seed).shaped(width, 4) for seed, width in ((0, 10), (1, 10), (0, 11))]
    assert len({gaussian.identity for gaussian in shaped}) == 3
    assert shaped[0].identity == "gaussian(seed=0, inputs=10, sha=1ae7ee3c711d)"


def test_copies_carry_the_key_and_not_the_matrix():
    gaussian = Gaussian(2).shaped(100, 900)
    e_ND = rows(3, 100)
    p_NM = gaussian.project(e_ND)
    assert len(pickle.dumps(gaussian)) < 2000
    for other in (copy.deepcopy(gaussian), pickle.loads(pickle.dumps(gaussian))):
        assert torch.equal(other.project(e_ND), p_NM)
        assert other.identity == gaussian.identity


def test_reshaping_leaves_the_first_alone():
    first = Gaussian().shaped(4, 5)
    e_ND = rows(2, 4)
    before_NM = first.project(e_ND)
    first.shaped(4, 2).project(e_ND)
    assert torch.equal(first.project(e_ND), before_NM)


def test_half_precision_is_computed_in_float32():
    gaussian = Gaussian().shaped(4, 5)
    e_ND = rows(2, 4).bfloat16()
    assert torch.equal(gaussian.project(e_ND), gaussian.project(e_ND.float()).bfloat16())


def test_nothing_is_projected_without_a_shape_or_with_another_width():
    for use in (lambda: Gaussian().project(rows(2, 4)), Gaussian().matrix):
        with pytest.raises(ConfigError, match="no shape yet"):
            use()
    with pytest.raises(ConfigError, match=r"\(N, 4\)"):
        Gaussian().shaped(4, 5).project(rows(2, 3))
    with pytest.raises(NonFinite):
        Gaussian().shaped(1, 5).project(torch.tensor([[math.nan]]))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4, 2.5), (True, 3)])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(ConfigError, match="positive integer"):
        Gaussian().shaped(*shape)


def test_seeds_are_integers():
    with pytest.raises(ConfigError, match="seed"):
        Gaussian(0.5)


def test_empty_batches_pass():
    assert Gaussian().shaped(4, 300).project(torch.zeros(0, 4)).shape == (0, 300)
