"""Triton's kernel of draws in the interpreter: run by `test_triton` in a process with TRITON_INTERPRET=1."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa import Gaussian
from odfa.draws import Draws, accelerated
from odfa.draws.accelerated import fill_on_accelerator, gather_normal, multiply_normal
from odfa.project import gaussian as gaussian_module
from tests.draws.test_draws import FIRST, LAWS, SHAPES

assert os.environ.get("TRITON_INTERPRET") == "1", "expected TRITON_INTERPRET=1; run test_triton.py"


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("first_row", FIRST[1::2])
@pytest.mark.parametrize("shape", [*SHAPES[1::2], (3, 4099)], ids=str)
def test_numbers_are_those_of_the_processor(shape, first_row, law, monkeypatch):
    monkeypatch.setattr(accelerated, "_COUNTERS", 64)
    found_RC = torch.full(shape, torch.nan)
    fill_on_accelerator(law, found_RC, Draws(3).key, first_row)
    assert torch.equal(found_RC, getattr(Draws(3), law)(*shape, first_row=first_row))


HALVES = [torch.float16, torch.bfloat16]
KINDS = [torch.float32, *HALVES, torch.int8, torch.bool]
ROUNDING = {torch.float32: 0, torch.float16: 1.01 * 2.0**-11, torch.bfloat16: 1.01 * 2.0**-7}
"""Of a number, to the nearest; the interpreter cuts bfloat16's digits off."""


def rows(num_rows, num_inputs, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if dtype in (torch.int8, torch.bool):
        return torch.randint(-1 if dtype == torch.int8 else 0, 2, (num_rows, num_inputs), generator=generator).to(dtype)
    return torch.randn(num_rows, num_inputs, generator=generator).to(dtype)


def product(x_ND, num_outputs, precision="tf32"):
    dtype = x_ND.dtype if x_ND.dtype.is_floating_point else torch.float32
    p_NM = torch.full((len(x_ND), num_outputs), torch.nan, dtype=dtype)
    multiply_normal(x_ND, p_NM, Draws(9).key, precision=precision)
    return p_NM


def check(got_NM, x_ND, matrix_DM):
    """Each entry of the matrix and each result may be off by one rounding to the results' type; sums are float32."""
    x_ND, matrix_DM = x_ND.double(), matrix_DM.double()
    exact_NM, size_NM = x_ND @ matrix_DM, x_ND.abs() @ matrix_DM.abs()
    step = ROUNDING[got_NM.dtype]
    assert ((got_NM - exact_NM).abs() <= step * (size_NM + exact_NM.abs()) + 3e-6 * x_ND.norm(dim=1)[:, None]).all()


@pytest.mark.parametrize("num_outputs", [1, 2, 3, 4, 5, 127, 128, 129, 131])
def test_multiplied_numbers_are_those_of_the_processor(num_outputs):
    expected_DM = Draws(9).normal(40, num_outputs)
    assert torch.equal(product(torch.eye(40), num_outputs, "ieee"), expected_DM)
    assert torch.equal(product(torch.eye(40), num_outputs, "tf32"), expected_DM)  # its parts add up to the number
    # rounded to bfloat16 they are no law here: the interpreter cuts digits off
    assert torch.equal(product(torch.eye(40).half(), num_outputs), expected_DM.half())


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from([1, 3, 16, 17, 129]), st.sampled_from([1, 2, 15, 16, 17, 31, 32, 33, 63, 65, 129]),
    st.sampled_from([1, 3, 4, 5, 127, 128, 129]), st.sampled_from(KINDS), st.sampled_from(["tf32", "ieee"]),
)  # fmt: skip
def test_products(num_rows, num_inputs, num_outputs, dtype, precision):
    x_ND, matrix_DM = rows(num_rows, num_inputs, dtype), Draws(9).normal(num_inputs, num_outputs)
    check(product(x_ND, num_outputs, precision), x_ND, matrix_DM)


def test_strides_of_products():
    matrix_DM = Draws(9).normal(100, 130)
    for x_ND in (rows(6, 300)[::2, ::3], rows(100, 3).T, rows(1, 100).expand(3, -1)):
        room = torch.full((130, 7), torch.nan)
        multiply_normal(x_ND, room.T[::3], Draws(9).key, precision="tf32")
        check(room.T[::3], x_ND, matrix_DM)
        assert room.T[1::3].isnan().all()


@pytest.mark.parametrize("num_outputs", [1, 3, 511, 512, 513, 1030])
@pytest.mark.parametrize("num_entries", [1, 2, 7])
def test_gathered_rows(num_entries, num_outputs):
    """Bit for bit what a processor adds up in the same order."""
    index_NF, gain_NF = torch.randint(50, (5, num_entries)), rows(5, num_entries)
    index_NF[0, 0] = 2**32 + 5
    got_NM, expected_NM = torch.full((5, num_outputs), torch.nan), torch.zeros(5, num_outputs)
    gather_normal(index_NF, gain_NF, got_NM, Draws(9).key)
    for index_N, gain_N in zip(index_NF.unbind(1), gain_NF.unbind(1), strict=True):
        expected_NM += gain_N[:, None] * Draws(9).normal_at(index_N, num_outputs)
    assert torch.equal(got_NM, expected_NM)


def test_what_is_gathered_may_have_strides_or_no_rows():
    index_NF, gain_NF = torch.randint(50, (2, 5)).T, rows(5, 4)[:, ::2]
    got_NM, same_NM = torch.empty(5, 30), torch.empty(5, 30)
    gather_normal(index_NF, gain_NF, got_NM, 3)
    gather_normal(index_NF.contiguous(), gain_NF.contiguous(), same_NM, 3)
    assert torch.equal(got_NM, same_NM)
    gather_normal(index_NF[:0], gain_NF[:0], got_NM[:0], 3)


@pytest.fixture
def as_if_accelerated(monkeypatch):
    monkeypatch.setattr(gaussian_module, "triton_runs_on", lambda device: True)


@pytest.mark.parametrize("shape", [(20, 70), (300, 270)], ids=str)
def test_the_projection(shape, as_if_accelerated):
    projection = Gaussian(3, stored=False).shaped(*shape)
    exact_DM = projection.matrix().double()
    for dtype in (torch.float32, *HALVES, torch.int8):
        e_ND = rows(3, shape[0], dtype)
        p_NM = projection.project(e_ND)
        assert p_NM.dtype == (dtype if dtype.is_floating_point else torch.float32)
        check(p_NM, e_ND, exact_DM)
    wide_ND = rows(3, shape[0]).double()
    torch.testing.assert_close(projection.project(wide_ND), wide_ND @ exact_DM, rtol=0, atol=1e-12)
    assert projection.project(torch.zeros(0, shape[0])).shape == (0, shape[1])
    huge_ND = torch.full((2, shape[0]), 2.0**100)
    torch.testing.assert_close(projection.project(huge_ND).double(), huge_ND.double() @ exact_DM, rtol=1e-4, atol=1e26)


def test_no_matrix_is_drawn_where_it_is_multiplied(as_if_accelerated, monkeypatch):
    projection = Gaussian(3, stored=False).shaped(20, 70)
    monkeypatch.setattr(Draws, "_filled", None)
    monkeypatch.setattr(Draws, "normal_at", None)
    assert projection.project(rows(2, 20)).any()
