"""Element by element in float64: every path, element type, thread count; sizes from 1 to beyond one row and panel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from odfa.errors import ConfigError
from odfa.structured import Structured
from odfa.structured.portable import walsh_hadamard
from odfa.structured.shifts import FEW
from tests.structured import reference

PAIRS = [
    (1, 1), (1, 2000), (2, 3), (3, 1023), (7, 1025), (10, 100), (31, 33), (63, 64), (64, 65), (65, 1000), (97, 2048),
    (127, 129), (255, 256), (256, 255), (257, 1), (509, 4097), (511, 513), (512, 1024), (513, 1000), (700, 701),
    (1000, 1000), (1021, 3000), (1023, 1025), (1024, 1024), (1024, 5000), (1025, 1023), (1500, 33), (1999, 2003),
    (2047, 2049), (2048, 2048), (2049, 100), (3001, 4099), (4093, 5), (4095, 4096), (4096, 4097),
]  # fmt: skip
LARGE = [(4097, 8192), (8191, 9000), (10_007, 20_011), (16_384, 100), (33_000, 65_537), (2**17 + 1, 1000)]


def rows(num_rows: int, num_inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_rows, num_inputs, generator=torch.Generator().manual_seed(seed))


def codes(num_rows: int, num_inputs: int, lit: int | None = None, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(0, 2, (num_rows, num_inputs), generator=generator, dtype=torch.int8) * 2 - 1
    if lit is not None:
        for row in t:
            row[torch.randperm(num_inputs, generator=generator)[min(lit, num_inputs) :]] = 0
    return t


def check(got_NM: torch.Tensor, exact_NM: torch.Tensor, x_ND: torch.Tensor, tolerance: float) -> None:
    """Errors in units of the rms of an output, |x|."""
    scale_N1 = x_ND.double().norm(dim=1, keepdim=True)
    assert ((got_NM.double() - exact_NM).abs() / scale_N1.clamp_min(1e-30)).max() < tolerance


def test_transforms_like_scipy():
    for points in (1, 2, 64, 128, 2048):
        x = rows(2, points).double()
        np.testing.assert_allclose(walsh_hadamard(x).numpy(), x.numpy() @ hadamard(points), atol=1e-10)


@pytest.mark.parametrize("num_inputs", [1, 100, 1000, 1024, 1500, 2048])
def test_the_portable_matrix_is_the_one_that_is_documented(num_inputs):
    num_outputs = 2300
    expected_DM = reference.matrix(5, num_inputs, num_outputs)
    x_ND = rows(3, num_inputs).double()
    got_NM = Structured(5, num_inputs).portable(x_ND, num_outputs)
    np.testing.assert_allclose(got_NM.numpy(), x_ND.numpy() @ expected_DM, atol=1e-10)


def test_beyond_a_row_too():
    x_ND = rows(2, 5000).double()
    expected_NM = reference.project(1, x_ND.numpy(), 8192 + 40)
    got_NM = Structured(1, 5000).portable(x_ND, 8192 + 40)
    np.testing.assert_allclose(got_NM.numpy(), expected_NM, atol=1e-9)


@pytest.mark.parametrize("pair", PAIRS + LARGE, ids=str)
def test_kernels_equal_the_explicit_matrix(pair):
    num_inputs, num_outputs = pair
    structured = Structured(3, num_inputs)
    x_ND, dense_ND, few_ND = rows(2, num_inputs), codes(2, num_inputs), codes(2, num_inputs, lit=5)
    exact_NM = structured.portable(x_ND.double(), num_outputs)
    check(structured.project(x_ND, num_outputs), exact_NM, x_ND, 3e-6)
    check(structured.portable(x_ND, num_outputs), exact_NM, x_ND, 3e-6)
    for t_ND in (dense_ND, few_ND):
        exact_NM = structured.portable(t_ND.double(), num_outputs)
        got_NM, _ = structured.project_ternary(t_ND, num_outputs)
        check(got_NM, exact_NM, t_ND, 0.12)  # about 0.5 % rms, more where 2^k sums of halves meet in one output
        if num_outputs > 500:
            assert (got_NM - exact_NM).norm() < 0.01 * exact_NM.norm()
        raw_NM, scale_N = structured.project_ternary(t_ND, num_outputs, raw=True)
        assert raw_NM.dtype == torch.int16
        torch.testing.assert_close(raw_NM * scale_N[:, None], got_NM, rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5000), st.integers(1, 9000), st.integers(0, 3))
def test_any_shape(num_inputs, num_outputs, seed):
    structured, x_ND = Structured(seed, num_inputs), rows(1, num_inputs, seed)
    check(structured.project(x_ND, num_outputs), structured.portable(x_ND.double(), num_outputs), x_ND, 3e-6)


@pytest.mark.parametrize(
    ("num_inputs", "num_outputs", "num_rows"), [(1000, 30_000, 40), (100_000, 300_000, 1), (9000, 50_000, 7)]
)
def test_threads_change_no_bit(num_inputs, num_outputs, num_rows):
    structured = Structured(1, num_inputs)
    x_ND, t_ND, before = rows(num_rows, num_inputs), codes(num_rows, num_inputs), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append((structured.project(x_ND, num_outputs), structured.project_ternary(t_ND, num_outputs)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize("lit", [1, 2, 3, 4, 8, 16, FEW, FEW + 1, 200, 1000, None])
@pytest.mark.parametrize("num_inputs", [1024, 4096, 2**14])
def test_int16_does_not_overflow(num_inputs, lit):
    """An overflow is an error of 2^16 steps, ten times the rms of an output: no single entry may be far off."""
    structured = Structured(2, num_inputs)
    t_ND = codes(24, num_inputs, lit)
    got_NM, exact_NM = structured.project_ternary(t_ND, num_inputs)[0], structured.portable(t_ND.double(), num_inputs)
    check(got_NM, exact_NM, t_ND, 0.2)
    assert (got_NM - exact_NM).norm() < 0.01 * exact_NM.norm()


def test_int16_with_neighbouring_non_zeros_does_not_overflow():
    """Cosets pile up energy in parts of a vector: the worst that a few non-zeros can do."""
    num_inputs = 4096
    structured = Structured(4, num_inputs)
    t_ND = torch.zeros(64, num_inputs, dtype=torch.int8)
    for i in range(64):
        t_ND[i, :8] = torch.tensor([1 if i >> bit & 1 else -1 for bit in range(8)], dtype=torch.int8)
    got_NM, exact_NM = structured.project_ternary(t_ND, num_inputs)[0], structured.portable(t_ND.double(), num_inputs)
    check(got_NM, exact_NM, t_ND, 0.2)


def test_rows_keep_their_own_plan_and_scale():
    structured = Structured(2, 2000)
    t_ND = torch.cat([codes(3, 2000), codes(3, 2000, 3), torch.zeros(1, 2000, dtype=torch.int8)])
    scale_N = torch.rand(7)
    together, _ = structured.project_ternary(t_ND, 3000, scale_N=scale_N)
    alone = torch.cat(
        [structured.project_ternary(t_ND[i : i + 1], 3000, scale_N=scale_N[i : i + 1])[0] for i in range(7)]
    )
    assert torch.equal(together, alone)
    assert not together[6].any()


@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(1, 1), (1000, 2500), (5000, 300)])
def test_adjoint(num_inputs, num_outputs):
    structured = Structured(0, num_inputs)
    x_ND, p_NM = rows(2, num_inputs).double(), rows(2, num_outputs, 1).double()
    forward, backward = structured.portable(x_ND, num_outputs) * p_NM, structured.adjoint(p_NM) * x_ND
    torch.testing.assert_close(forward.sum(1), backward.sum(1), rtol=1e-10, atol=1e-8)


def test_a_later_block_on_its_own():
    structured, x_ND = Structured(0, 1000), rows(2, 1000)
    whole_NM = structured.project(x_ND, 4096)
    assert torch.equal(structured.project(x_ND, 2000, first_block=1), whole_NM[:, 2048:4048])
    torch.testing.assert_close(
        structured.portable(x_ND, 2000, first_block=1), whole_NM[:, 2048:4048], atol=1e-3, rtol=0
    )


def test_results_in_place():
    structured, x_ND = Structured(0, 1000), rows(2, 1000)
    out_NM = structured.empty(2, 5000, torch.float32)
    assert out_NM.data_ptr() % 64 == 0
    assert structured.project(x_ND, 5000, out=out_NM) is out_NM
    assert torch.equal(out_NM, structured.project(x_ND, 5000))


def test_int16_refuses_other_devices():
    with pytest.raises(ConfigError, match="on meta"):
        Structured(0, 100).project_ternary(torch.zeros(1, 100, dtype=torch.int8, device="meta"), 10)


def test_int16_refuses_what_is_not_ternary():
    with pytest.raises(ConfigError, match="ternary"):
        Structured(0, 100).project_ternary(torch.full((1, 100), 2, dtype=torch.int8), 10)
    with pytest.raises(ConfigError, match="ternary"):
        Structured(0, 3).project_ternary(torch.tensor([[0, 1, -2]], dtype=torch.int8), 10)


def test_at_most_2_24_inputs():
    with pytest.raises(ConfigError, match="16777217"):
        Structured(0, 2**24 + 1)


@pytest.mark.slow
def test_full_size_of_the_opu():
    structured = Structured(0, 2**20)
    t_ND = codes(1, 2**20)
    exact_NM = structured.portable(t_ND.double(), 2**21)
    check(structured.project(t_ND.float(), 2**21), exact_NM, t_ND, 5e-6)
    got_NM, _ = structured.project_ternary(t_ND, 2**21)
    assert (got_NM - exact_NM).norm() < 0.01 * exact_NM.norm()
