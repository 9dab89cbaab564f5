"""Draws: element by element against Python's integers and float64, and the same numbers by every way to make them."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa.draws import Draws, arithmetic, draws
from odfa.errors import ConfigError
from tests.draws import reference

CPU = torch.device("cpu")
LAWS = ["uniform", "normal"]
SHAPES = [(1, 1), (1, 3), (5, 4), (3, 5), (2, 255), (2, 256), (2, 257), (70, 2), (1, 1027), (64, 63)]
FIRST = [0, 1, 2**32 - 1, 2**33]
needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_reference_gives_the_published_vectors(counter, key, expected):
    """kat_vectors of Random123."""
    assert reference.philox(counter, key) == expected


@pytest.mark.parametrize("first_row", FIRST)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 9)], ids=str)
def test_every_number(shape, first_row):
    drawn, (rows, columns) = Draws(7, first_row), shape
    for dtype, expected in ((torch.float32, reference.uniform), (torch.float64, reference.double_uniform)):
        found_RC = drawn.uniform(rows, columns, first_row=first_row, dtype=dtype)
        assert found_RC.dtype == dtype
        for r in range(rows):
            for c in range(columns):
                assert found_RC[r, c].item() == expected(drawn.key, first_row + r, c)
    found_RC = drawn.normal(rows, columns, first_row=first_row)
    for r in range(rows):
        for c in range(columns):
            assert found_RC[r, c].item() == pytest.approx(reference.normal(drawn.key, first_row + r, c), abs=2e-6)


@needs_numba
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("first_row", FIRST)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compiled_numbers_are_those_of_torch(shape, first_row, law, monkeypatch):
    by_numba = getattr(Draws(3), law)(*shape, first_row=first_row)
    monkeypatch.setattr(draws, "compiler_on", lambda _device: "torch")
    by_torch = getattr(Draws(3), law)(*shape, first_row=first_row)
    assert torch.equal(by_numba, by_torch)


@needs_numba
def test_threads_change_nothing(monkeypatch):
    one = Draws(5).normal(7, 129)
    monkeypatch.setattr(draws, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(Draws(5).normal(7, 129), one)


@given(st.integers(1, 9), st.integers(1, 300), st.integers(0, 2**40), st.data())
@settings(deadline=None)
def test_a_part_is_what_it_is_in_the_whole(rows, columns, first_row, data):
    start, width = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(1, columns))
    for law in LAWS:
        whole = getattr(Draws(1), law)(rows, columns, first_row=first_row)
        part = getattr(Draws(1), law)(rows - start, width, first_row=first_row + start)
        assert torch.equal(part, whole[start:, :width])


@pytest.mark.parametrize("by", ["numba", "torch"])
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 255, 256, 257, 513])
@pytest.mark.parametrize("first_column", [0, 4, 252, 256, 1024])
def test_rows_by_index(columns, first_column, by, monkeypatch):
    if by == "torch":
        monkeypatch.setattr(draws, "compiler_on", lambda _device: "torch")
        monkeypatch.setattr(draws, "_NUMBERS_A_CALL", 600)
    row_L = torch.tensor([3, 0, 6, 6, 2])
    whole = Draws(4).normal(7, first_column + columns)
    found_LC = Draws(4).normal_at(row_L, columns, first_column=first_column)
    assert torch.equal(found_LC, whole[row_L, first_column:])
    far = Draws(4).normal_at(torch.tensor([2**33]), columns, first_column=first_column)
    assert torch.equal(far, Draws(4).normal(1, first_column + columns, first_row=2**33)[:, first_column:])
    assert torch.equal(Draws(4).behind(2).normal_at(row_L[1:2], columns), Draws(4).normal(1, columns, first_row=2))


def test_rows_by_index_in_threads(monkeypatch):
    row_L = torch.tensor([9, 0, 4, 4, 1])
    one = Draws(5).normal_at(row_L, 129)
    monkeypatch.setattr(draws, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(Draws(5).normal_at(row_L, 129), one)


def test_no_rows_by_index():
    assert Draws(1).normal_at(torch.zeros(0, dtype=torch.int64), 5).shape == (0, 5)
    assert Draws(1).normal_at(torch.zeros(2, dtype=torch.int64, device="meta"), 5, first_column=8).shape == (2, 5)
    with pytest.raises(ConfigError, match="multiple of 4"):
        Draws(1).normal_at(torch.zeros(1, dtype=torch.int64), 5, first_column=2)


def test_numbers_made_in_parts(monkeypatch):
    monkeypatch.setattr(draws, "compiler_on", lambda _device: "torch")
    whole = Draws(1).normal(5, 10), Draws(1).uniform(5, 10, dtype=torch.float64)
    monkeypatch.setattr(draws, "_NUMBERS_A_CALL", 20)
    assert torch.equal(Draws(1).normal(5, 10), whole[0])
    assert torch.equal(Draws(1).uniform(5, 10, dtype=torch.float64), whole[1])


def test_logarithms():
    """Of all that a word may give, up to the largest and down to the least."""
    word = torch.cat([torch.arange(3000), 2**32 - 1 - torch.arange(3000), torch.randint(2**32, (100_000,))])
    u = word.float() * 2.0**-32 + 2.0**-33
    exact = u.double().log()
    assert ((arithmetic.log(u) - exact).abs() < 1.2e-7 * exact.abs().clamp_min(1)).all()


def test_square_roots_are_rounded_to_the_nearest():
    x = torch.cat([torch.zeros(1), torch.arange(1, 3000) * 2.0**-24, torch.rand(1_000_000) * 46])
    assert torch.equal(arithmetic.sqrt(x), torch.from_numpy(np.sqrt(x.numpy())))


def test_normal_numbers_follow_their_law():
    """Moments within five standard deviations, of pairs made of one counter too; tails as often as they should be."""
    x = Draws(11).normal(1000, 4000).double()
    n = x.numel()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean().item() - mean) < 5 * (variance / n) ** 0.5
    pairs = x.view(-1, 2)
    assert abs(pairs.prod(1).mean().item()) < 5 * (1 / len(pairs)) ** 0.5
    assert abs(pairs.square().prod(1).mean().item() - 1) < 5 * (8 / len(pairs)) ** 0.5
    assert abs((x[1:] * x[:-1]).mean().item()) < 5 / n**0.5
    for cut in (0.5, 1, 2, 3, 4):
        share = torch.special.ndtr(torch.tensor(-cut, dtype=torch.float64)).item()
        for found in ((x > cut).sum().item(), (x < -cut).sum().item()):
            assert abs(found - n * share) < 5 * (n * share) ** 0.5


def test_uniform_numbers_follow_their_law():
    x = Draws(12).uniform(1000, 4000).double()
    assert x.min() >= 0
    assert x.max() < 1
    counts = torch.histc(x, 1000, 0, 1)
    spread = ((counts - 4000).square() / 4000).sum().item()  # chi-square of 999 degrees
    assert abs(spread - 999) < 5 * (2 * 999) ** 0.5


def test_keys_and_rows_give_unrelated_numbers():
    numbers = [Draws(a, b).normal(1, 10_000)[0] for a in (0, 1, 2**40) for b in (0, 1)]
    numbers += [Draws(0, 0).normal(1, 10_000, first_row=row)[0] for row in (1, 2, 2**32)]
    products = np.corrcoef(np.stack([one.numpy() for one in numbers])) - np.eye(len(numbers))
    assert np.abs(products).max() < 0.05  # five standard deviations


def test_devices_and_types():
    assert Draws(1).normal(2, 3, device="meta").shape == (2, 3)
    assert Draws(1).uniform(2, 3, device="meta", dtype=torch.float64).dtype == torch.float64
    half = Draws(1).normal(2, 3, dtype=torch.bfloat16)
    assert torch.equal(half, Draws(1).normal(2, 3).bfloat16())
    assert torch.equal(Draws(1).normal(2, 3, dtype=torch.float64), Draws(1).normal(2, 3).double())
    for law in LAWS:
        for shape in ((0, 3), (3, 0)):
            for dtype in (torch.float32, torch.float64):
                assert getattr(Draws(1), law)(*shape, dtype=dtype).shape == shape
