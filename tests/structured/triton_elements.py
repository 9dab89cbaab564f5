"""The accelerators' kernels element by element against float64, in Triton's interpreter: run by `test_triton`.

Triton decides when it is imported whether it interprets: this file is for a process with TRITON_INTERPRET=1.
"""

import copy
import os
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from odfa import Hadamard, Rademacher, Ternary
from odfa.project import Encoded
from odfa.project import hadamard as hadamard_module
from odfa.project import rademacher as rademacher_module
from odfa.structured import Structured, accelerated, counter, transform
from odfa.structured.accelerated import Tables, gather_signs, sign_rows, split, tile_columns, transform_rows
from odfa.structured.keyed import plus_minus
from odfa.structured.triton_places import products
from tests.structured import reference

assert os.environ.get("TRITON_INTERPRET") == "1", "expected TRITON_INTERPRET=1; run test_triton.py"
WAYS = ["tf32", "ieee"]
HALVES = [torch.float16, torch.bfloat16]
ROUNDING = {torch.float32: 3e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Of results, in units of an output's rms; outputs are up to five times that."""


def rows(num_rows, num_inputs, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if dtype in (torch.int8, torch.bool):
        return torch.randint(-1 if dtype == torch.int8 else 0, 2, (num_rows, num_inputs), generator=generator).to(dtype)
    return torch.randn(num_rows, num_inputs, generator=generator).to(dtype)


def kernel(structured, x_ND, num_outputs, *, first_block=0, precision="tf32"):
    dtype = x_ND.dtype if x_ND.dtype.is_floating_point else torch.float32
    p_NM = torch.full((len(x_ND), num_outputs), torch.nan, dtype=dtype)
    tables = Tables.of(structured.keyed, first_block + structured.blocks(num_outputs), x_ND.device)
    transform_rows(x_ND, p_NM, tables, first_block=first_block, precision=precision)
    return p_NM


def check(got_NM, exact_NM, x_ND, tolerance=None):
    scale_N1 = x_ND.double().norm(dim=1, keepdim=True).clamp_min(1e-30)
    assert ((got_NM.double() - exact_NM) / scale_N1).abs().max() < (tolerance or ROUNDING[got_NM.dtype])


PAIRS = [
    (1, 1), (1, 2000), (31, 33), (2047, 2049), (2048, 2048), (2049, 1), (2049, 4097), (4096, 100), (4097, 8191),
    (8192, 513),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pair", "precision"), [*((pair, "tf32") for pair in PAIRS), *((pair, "ieee") for pair in PAIRS[4::5])], ids=str
)
def test_one_program(pair, precision):
    structured, x_ND = Structured(3, pair[0]), rows(2, pair[0])
    exact_NM = structured.portable(x_ND.double(), pair[1])
    check(kernel(structured, x_ND, pair[1], precision=precision), exact_NM, x_ND)


@pytest.mark.parametrize(("pair", "dtype"), [((8193, 16_385), torch.float32), ((16_384, 9), torch.bfloat16)], ids=str)
def test_the_largest_vector_of_one_program(pair, dtype, monkeypatch):
    monkeypatch.setattr(accelerated, "_in_four", None)
    structured, x_ND = Structured(3, pair[0]), rows(1, pair[0], dtype)
    check(kernel(structured, x_ND, pair[1]), structured.portable(x_ND.double(), pair[1]), x_ND)


@pytest.mark.parametrize(("log_points", "log_warps"), [(11, 2), (12, 3), (13, 3), (13, 4), (14, 4)])
def test_entries_move_once_a_transform(log_points, log_warps):
    """An operand has its index bits where the result before has them, but for the last product of a transform."""
    columns = log_points - 4 - log_warps

    def parts(bits, *lengths):
        ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        return [frozenset(bits[start:end]) for start, end in pairwise(ends)]

    ends = None
    for second in (False, True, False):
        made = products(log_points, log_warps, second)
        assert sorted(bit for summed, _ in made for bit in summed) == list(range(log_points))
        for i, (summed, others) in enumerate(made):
            assert sorted(summed + others) == list(range(log_points))
            quad, _ = parts(summed, 2, columns)
            group, warps, _ = parts(others, 3, log_warps, columns)
            moves = ends is not None and ends != (quad, group, warps)
            assert moves == (i == len(made) - 1)
            group, _ = parts(summed, 3, columns)
            _, quad, warps, _ = parts(others, 1, 2, log_warps, columns)
            ends = quad, group, warps


@pytest.mark.parametrize(
    ("pair", "num_rows", "columns"), [((8191, 8193), 1, 128), ((8192, 31), 2, 16), ((16_383, 100), 1, 32)], ids=str
)
def test_four_passes(pair, num_rows, columns, monkeypatch):
    monkeypatch.setattr(accelerated, "_ONE_PROGRAM_LOG", 12)
    monkeypatch.setattr(accelerated, "_TILE_COLUMNS", (8, columns))
    monkeypatch.setattr(accelerated, "_BUFFER_BYTES", 1)  # one row at a time
    structured, x_ND = Structured(3, pair[0]), rows(num_rows, pair[0])
    check(kernel(structured, x_ND, pair[1]), structured.portable(x_ND.double(), pair[1]), x_ND)


def test_the_matrix_is_the_documented_one():
    num_inputs, num_outputs = 1100, 2300
    x_ND = rows(3, num_inputs)
    exact_NM = torch.from_numpy(reference.project(5, x_ND.double().numpy(), num_outputs))
    check(kernel(Structured(5, num_inputs), x_ND, num_outputs), exact_NM, x_ND)


def test_every_sign_is_the_processors():
    projection = Hadamard(2).shaped(9, 2500)
    exact_DM = Structured(2, 9).portable(torch.eye(9, dtype=torch.float64), 2500)
    got_DM = kernel(Structured(2, 9), torch.eye(9), 2500)
    clear_DM = exact_DM.abs() > 1e-5
    assert clear_DM.float().mean() > 0.999
    assert torch.equal(got_DM.sign()[clear_DM], projection.matrix().sign()[clear_DM])


@pytest.mark.parametrize("columns", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("log_rows", range(4, 13))
def test_transforms_down_columns_like_scipy(log_rows, columns):
    """Every chain of factors, and tiles narrower than a word of signs."""
    from odfa.structured.triton_transform import enter

    if log_rows not in (8, 9) and columns != 32:
        return
    num_rows, num_inputs = 1 << log_rows, (32 << log_rows) - 5
    x_D, words = rows(1, num_inputs), np.random.default_rng(0).integers(0, 2**32, num_rows, dtype=np.uint32)
    z_J = torch.empty(32 << log_rows)
    enter[1, 32 // columns](
        x_D, *x_D.stride(), num_inputs, z_J, torch.from_numpy(words.view(np.int32)), log_rows, 32, columns, "tf32"
    )
    padded_J = np.pad(x_D[0].double().numpy(), (0, 5)) * plus_minus(words)
    exact_RW = hadamard(num_rows) @ padded_J.reshape(num_rows, 32)
    assert np.abs(z_J.view(num_rows, 32).numpy() - exact_RW).max() < 3e-6 * num_rows**0.5


@pytest.mark.parametrize("dtype", [*HALVES, torch.int8, torch.bool])
@pytest.mark.parametrize("one_program", [True, False])
def test_types_of_rows(dtype, one_program, monkeypatch):
    monkeypatch.setattr(accelerated, "_ONE_PROGRAM_LOG", 13 if one_program else 12)
    num_inputs = 1000 if one_program else 5000
    structured, x_ND = Structured(1, num_inputs), rows(3 if one_program else 1, num_inputs, dtype)
    check(kernel(structured, x_ND, 2100), structured.portable(x_ND.double(), 2100), x_ND)


@pytest.mark.parametrize("num_inputs", [900, 5000])
def test_strides(num_inputs, monkeypatch):
    monkeypatch.setattr(accelerated, "_ONE_PROGRAM_LOG", 12)
    structured = Structured(1, num_inputs)
    tables = Tables.of(structured.keyed, 2, torch.device("cpu"))
    for x_ND in (rows(4, 3 * num_inputs)[::2, ::3], rows(num_inputs, 2).T, rows(1, num_inputs).expand(2, -1)):
        room = torch.full((3000, 4), torch.nan)
        transform_rows(x_ND, room.T[::3], tables, precision="tf32")
        check(room.T[::3], structured.portable(x_ND.double(), 3000), x_ND)
        assert room.T[1::3].isnan().all()


def test_later_blocks():
    structured, x_ND = Structured(1, 100), rows(2, 100)
    got_NM = kernel(structured, x_ND, 2500, first_block=2)
    check(got_NM, structured.portable(x_ND.double(), 2500, first_block=2), x_ND)


def test_blocks_are_shared_among_programs(monkeypatch):
    structured, x_ND = Structured(1, 100), rows(3, 100)
    for programs in (1, 9, 1000):
        monkeypatch.setattr(accelerated, "_PROGRAMS", programs)
        check(kernel(structured, x_ND, 9000), structured.portable(x_ND.double(), 9000), x_ND)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 3), st.integers(1, 4097), st.integers(1, 5000), st.sampled_from([torch.float32, *HALVES]))
def test_any_shape(num_rows, num_inputs, num_outputs, dtype):
    structured, x_ND = Structured(num_rows, num_inputs), rows(num_rows, num_inputs, dtype)
    check(kernel(structured, x_ND, num_outputs), structured.portable(x_ND.double(), num_outputs), x_ND)


def test_a_pass_fits_its_device():
    for log_points in range(14, 25):
        log_rows, log_columns = split(log_points)
        assert log_rows + log_columns == log_points
        assert log_rows >= 4
        assert 9 <= log_columns <= 12
        for shared in (2**16, 99 * 1024, 227 * 1024):
            columns = tile_columns(log_rows, shared)
            assert columns & (columns - 1) == 0
            assert 256 <= columns << log_rows <= shared / 4


def signs(x_ND, key, num_outputs, precision="tf32"):
    dtype = x_ND.dtype if x_ND.dtype.is_floating_point else torch.float32
    p_NM = torch.full((len(x_ND), num_outputs), torch.nan, dtype=dtype)
    sign_rows(x_ND, p_NM, key, precision=precision)
    return p_NM


@pytest.mark.parametrize("key", [0, 1, 2**31, 2**62 + 12_345])
def test_signs_bit_for_bit(key):
    expected_DM = torch.from_numpy(counter.entries(key, range(300), 200)).float()
    assert torch.equal(signs(torch.eye(200), key, 300), expected_DM)


KINDS = [torch.float32, *HALVES, torch.int8, torch.bool]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 140), st.integers(1, 200), st.integers(1, 300), st.sampled_from(KINDS), st.sampled_from(WAYS))
def test_products_with_signs(num_rows, num_inputs, num_outputs, dtype, precision):
    x_ND = rows(num_rows, num_inputs, dtype)
    exact_NM = x_ND.double() @ torch.from_numpy(counter.entries(9, range(num_outputs), num_inputs)).double()
    got_NM = signs(x_ND, 9, num_outputs, precision)
    if dtype.is_floating_point:
        check(got_NM, exact_NM, x_ND)
    else:
        assert torch.equal(got_NM.double(), exact_NM)


def test_strides_of_products_with_signs():
    exact_DM = torch.from_numpy(counter.entries(9, range(130), 100)).double()
    for x_ND in (rows(6, 300)[::2, ::3], rows(100, 3).T, rows(1, 100).expand(3, -1)):
        room = torch.full((130, 7), torch.nan)
        sign_rows(x_ND, room.T[::3], 9, precision="tf32")
        check(room.T[::3], x_ND.double() @ exact_DM, x_ND)
        assert room.T[1::3].isnan().all()


@pytest.mark.parametrize("num_outputs", [1, 511, 512, 513, 1100])
@pytest.mark.parametrize("num_entries", [1, 2, 7])
def test_gathered_signs(num_entries, num_outputs):
    """Bit for bit what a processor adds up in the same order."""
    index_NF, gain_NF = torch.randint(200, (5, num_entries)), rows(5, num_entries)
    got_NM, expected_NM = torch.full((5, num_outputs), torch.nan), torch.zeros(5, num_outputs)
    gather_signs(index_NF, gain_NF, got_NM, 2**62 + 9)
    signs_DM = torch.from_numpy(counter.entries(2**62 + 9, range(num_outputs), 200)).float()
    for index_N, gain_N in zip(index_NF.unbind(1), gain_NF.unbind(1), strict=True):
        expected_NM += gain_N[:, None] * signs_DM[index_N]
    assert torch.equal(got_NM, expected_NM)
    gather_signs(index_NF[:0], gain_NF[:0], got_NM[:0], 1)


def test_codes_of_few_entries(as_if_accelerated):
    encoded = Encoded(Rademacher(3), Ternary("sampled", repeats=2)).shaped(300, 530)
    on_processor = Ternary("sampled", repeats=2).encode(rows(4, 300)).values()
    check(encoded.project(rows(4, 300)), on_processor.double() @ encoded.matrix().double(), on_processor)


@pytest.fixture
def as_if_accelerated(monkeypatch):
    for module in (transform, hadamard_module, rademacher_module):
        monkeypatch.setattr(module, "triton_runs_on", lambda device: True)


@pytest.mark.parametrize(
    ("make", "shape"), [(Hadamard, (20, 70)), (Hadamard, (300, 2100)), (Rademacher, (200, 270))], ids=str
)
def test_projections(make, shape, as_if_accelerated):
    projection = make(3).shaped(*shape)
    exact_DM = make(3).shaped(*shape).matrix().double()
    for dtype in (torch.float32, *HALVES, torch.int8):
        e_ND = rows(3, shape[0], dtype)
        p_NM = projection.project(e_ND)
        assert p_NM.dtype == (dtype if dtype.is_floating_point else torch.float32)
        check(p_NM, e_ND.double() @ exact_DM, e_ND)
    wide_ND = rows(3, shape[0]).double()
    torch.testing.assert_close(projection.project(wide_ND), wide_ND @ exact_DM, rtol=0, atol=1e-4)
    assert projection.project(torch.zeros(0, shape[0])).shape == (0, shape[1])
    assert not projection.project(torch.zeros(2, shape[0])).any()
    for other in (copy.deepcopy(projection), pickle.loads(pickle.dumps(projection))):
        assert torch.equal(other.project(rows(2, shape[0])), projection.project(rows(2, shape[0])))


def test_identities_do_not_name_the_kernels(as_if_accelerated):
    assert Hadamard(0).shaped(1000, 4).identity == "hadamard(seed=0, inputs=1000, sha=b506ecf4147c)"
    assert Rademacher(0).shaped(1000, 4).identity == "rademacher(seed=0, inputs=1000)"


def test_a_projection_grows_its_tables(as_if_accelerated):
    structured, x_ND = Structured(0, 100), rows(1, 100)
    for num_outputs in (10, 5000, 300):
        check(structured.project(x_ND, num_outputs), structured.portable(x_ND.double(), num_outputs), x_ND)


def test_half_rows_are_read_as_they_are(as_if_accelerated, monkeypatch):
    seen = []
    monkeypatch.setattr(transform, "transform_rows", lambda x, out, *_, **__: seen.append(x.dtype) or out.zero_())
    Hadamard(0).shaped(300, 50).project(rows(2, 300, torch.bfloat16))
    huge_ND = torch.full((2, 300), 2.0**64, dtype=torch.bfloat16)
    Hadamard(0).shaped(300, 50).project(huge_ND)
    assert seen == [torch.bfloat16, torch.float32]  # huge rows are scaled first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_huge_values(dtype, as_if_accelerated):
    projection = Hadamard(0).shaped(300, 50)
    e_ND = torch.ones(2, 300, dtype=dtype)
    e_ND[0, 7] = 9.96921e36
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact_NM = e_ND.to(wide) @ projection.matrix().to(wide)
    off_NM = (projection.project(e_ND).to(wide) - exact_NM).abs() / exact_NM.abs().amax(dim=1, keepdim=True)
    assert off_NM.max() < (1e-2 if dtype == torch.bfloat16 else 1e-5)
