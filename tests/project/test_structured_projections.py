"""`Hadamard` and `Rademacher` as projections: the shared contract, their own refusals, the gather path."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa import Gaussian, Hadamard, Optical, Rademacher, Ternary, Twin
from odfa.errors import ConfigError, NonFinite
from odfa.project import Encoded
from odfa.structured import transform
from odfa.structured.counter import words

MAKERS = [Hadamard, Rademacher]


def rows(num_rows: int, num_inputs: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(num_rows, num_inputs, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("make", MAKERS)
@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 1500), st.integers(1, 1500), st.sampled_from([torch.float32, torch.float64]))
def test_projects_by_its_matrix(make, num_rows, num_inputs, num_outputs, dtype):
    projection = make(3).shaped(num_inputs, num_outputs)
    exact_DM = projection.matrix().double()
    real_ND = rows(num_rows, num_inputs, dtype)
    for e_ND in (real_ND, 0.3 * real_ND.sign() * (real_ND.abs() > 0.7)):
        p_NM = projection.project(e_ND)
        assert p_NM.dtype == dtype
        torch.testing.assert_close(p_NM.double(), e_ND.double() @ exact_DM, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_wider_begins_with_narrower(make):
    narrow, wide = (make(0).shaped(1200, width) for width in (300, 5000))
    e_ND = rows(2, 1200)
    torch.testing.assert_close(narrow.project(e_ND), wide.project(e_ND)[:, :300], atol=1e-4, rtol=0)
    assert narrow.identity == wide.identity


@pytest.mark.parametrize("make", [*MAKERS, lambda seed: Hadamard(seed, precision="int16")])
def test_copies_carry_the_key(make):
    projection = make(2).shaped(2000, 900)
    e_ND = rows(3, 2000).sign()
    p_NM = projection.project(e_ND)
    assert len(pickle.dumps(projection)) < 2000
    for other in (copy.deepcopy(projection), pickle.loads(pickle.dumps(projection))):
        assert torch.equal(other.project(e_ND), p_NM)
        assert other.identity == projection.identity


def test_identities():
    names = {made.shaped(70, 4).identity for made in (Hadamard(0), Hadamard(1), Rademacher(0), Rademacher(1))}
    assert len(names) == 4
    assert Hadamard(0).shaped(1000, 4).identity == "hadamard(seed=0, inputs=1000, sha=b506ecf4147c)"


def test_without_numba_it_is_the_same_matrix(monkeypatch):
    e_ND = rows(3, 1500)
    fast_NM = Hadamard(1).shaped(1500, 2500).project(e_ND)
    monkeypatch.setattr(transform, "kernels_available", lambda: False)
    torch.testing.assert_close(Hadamard(1).shaped(1500, 2500).project(e_ND), fast_NM, atol=2e-4, rtol=0)
    with pytest.raises(ConfigError, match=r"pip install numba"):
        Hadamard(1, precision="int16").shaped(1500, 10).project(e_ND.sign())


def test_int16_takes_ternary_rows_with_their_scales():
    e_ND = rows(30, 1000)
    code_ND = Ternary("best_cosine").encode(e_ND).values()
    exact_NM = Hadamard(0).shaped(1000, 2000).project(code_ND)
    fast_NM = Encoded(Hadamard(0, precision="int16"), Ternary("best_cosine")).shaped(1000, 2000).project(e_ND)
    assert (fast_NM - exact_NM).norm() < 0.01 * exact_NM.norm()
    with pytest.raises(ConfigError, match="ternary rows"):
        Hadamard(0, precision="int16").shaped(1000, 2000).project(e_ND)


@pytest.mark.parametrize("make", MAKERS)
def test_int8_rows(make):
    t_ND = torch.randint(-1, 2, (11, 300), dtype=torch.int8)
    projection = make(0).shaped(300, 100)
    p_NM = projection.project(t_ND)
    assert p_NM.dtype == torch.float32
    torch.testing.assert_close(p_NM, t_ND.float() @ projection.matrix(), atol=1e-4, rtol=0)


def test_complex_modes():
    hadamard = Hadamard(0).shaped(300, 200)
    matrix_DM = hadamard.matrix().double()
    modes_DM = torch.complex(matrix_DM[:, ::2], matrix_DM[:, 1::2]) * 0.5**0.5
    for e_ND in (rows(3, 300), torch.complex(rows(3, 300), rows(3, 300).flip(1))):
        expected_NM = e_ND.to(torch.complex128) @ modes_DM
        torch.testing.assert_close(hadamard.project_complex(e_ND).to(torch.complex128), expected_NM, atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="two outputs each"):
        Hadamard(0).shaped(300, 5).project_complex(rows(1, 300))


def test_adjoint():
    hadamard = Hadamard(0).shaped(300, 2000)
    e_ND, p_NM = rows(2, 300, torch.float64), rows(2, 2000, torch.float64)
    torch.testing.assert_close((hadamard.project(e_ND) * p_NM).sum(1), (hadamard.adjoint(p_NM) * e_ND).sum(1))
    with pytest.raises(ConfigError, match=r"\(N, 2000\)"):
        hadamard.adjoint(p_NM[:, :3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_partial_sums_of_huge_values_are_numbers(dtype):
    hadamard = Hadamard(0).shaped(300, 50)
    e_ND = torch.ones(2, 300, dtype=dtype)
    e_ND[0, 7] = 1e300 if dtype == torch.float64 else 9.96921e36
    wide = torch.complex128 if dtype.is_complex else torch.float64
    expected_NM = e_ND.to(wide) @ hadamard.matrix().to(wide)
    size_N1 = expected_NM.abs().amax(dim=1, keepdim=True)
    off_NM = (hadamard.project(e_ND).to(wide) - expected_NM).abs() / size_N1
    assert off_NM.max() < (1e-2 if dtype == torch.bfloat16 else 1e-5)
    if not dtype.is_complex and dtype != torch.bfloat16:
        p_NM = (expected_NM / 1000).to(dtype)  # so that what comes back is a number
        back_ND = p_NM.double() @ hadamard.matrix().double().T
        off_ND = (hadamard.adjoint(p_NM).double() - back_ND).abs() / back_ND.abs().amax(dim=1, keepdim=True)
        assert off_ND.max() < 1e-5


@pytest.mark.parametrize(
    "make",
    [
        lambda: Encoded(Hadamard(0, precision="int16"), Ternary()),
        lambda: Encoded(Rademacher(0), Ternary()),
        lambda: Optical(Twin.ideal(0)),
    ],
    ids=["int16", "rademacher", "optical"],
)
def test_scaled_rows_have_scaled_projections(make):
    e_ND = rows(3, 300)
    one_NM, huge_NM = (make().shaped(300, 20).project(part) for part in (e_ND, e_ND * 2.0**110))
    assert torch.equal(one_NM * 2.0**110, huge_NM)


@pytest.mark.parametrize("make", [*MAKERS, Gaussian])
def test_bad_input(make):
    projection = make(0).shaped(100, 50)
    for bad in (math.nan, math.inf):
        e_ND = rows(2, 100)
        e_ND[1, 3] = bad
        with pytest.raises(NonFinite):
            projection.project(e_ND)
    for shape in ((0, 5), (5, 0), (1.5, 2), (True, 2)):
        with pytest.raises(ConfigError, match="positive integer"):
            make(0).shaped(*shape)
    with pytest.raises(ConfigError, match="int64"):
        projection.project(torch.ones(2, 100, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"\(N, 100\)"):
        projection.project(rows(2, 99))
    with pytest.raises(ConfigError, match="no shape yet"):
        make(0).project(rows(1, 3))
    with pytest.raises(ConfigError, match="no shape yet"):
        make(0).matrix()
    with pytest.raises(ConfigError, match="seed"):
        make(0.5)
    assert projection.project(torch.zeros(0, 100)).shape == (0, 50)
    assert not projection.project(torch.zeros(3, 100)).any()


def test_refusals_of_their_own():
    with pytest.raises(ConfigError, match="float32 or int16"):
        Hadamard(0, precision="int8")
    with pytest.raises(ConfigError, match=r"2\^24"):
        Hadamard(0).shaped(2**24 + 1, 4)
    with pytest.raises(ConfigError, match="-1, 0 and 1"):
        Rademacher(0).shaped(3, 4).project(torch.tensor([[0, 2, 1]], dtype=torch.int8))
    with pytest.raises(ConfigError, match=r"2\^32"):
        Rademacher(0).shaped(3, 2**32)


def test_state_stays_small():
    assert Hadamard(0).shaped(50_000, 100_000).state_bytes < 10**6


def test_signs_are_those_of_the_counter():
    drawn = words(5, range(2, 4), 3)
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    for column in (2, 3):
        for word in range(3):
            state = 5 + golden * ((column << 32) + word) & mask
            state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
            state = (state ^ state >> 27) * 0x94D049BB133111EB & mask
            assert int(drawn[column - 2, word]) == state ^ state >> 31


def test_signs_are_independent():
    matrix_DM = Rademacher(0).shaped(1000, 2000).matrix().double().numpy()
    assert abs(matrix_DM.mean()) < 4 / math.sqrt(matrix_DM.size)
    overlap = matrix_DM.T @ matrix_DM / 1000
    off = overlap[~np.eye(2000, dtype=bool)] * math.sqrt(1000)
    assert off.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("lit", [0, 1, 5])
def test_few_non_zeros_are_gathered(lit):
    e_ND = torch.zeros(6, 1000)
    for row in e_ND[::2]:
        row[torch.randperm(1000)[:lit]] = torch.randn(lit)
    for stored in (True, False):
        gaussian = Gaussian(0, stored=stored).shaped(1000, 700)
        torch.testing.assert_close(gaussian.project(e_ND), e_ND @ gaussian.matrix(), atol=1e-5, rtol=1e-5)
