"""Splits are disjoint, stable and independent of a run's seed; bad data are refused."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa import data, recipes
from odfa.errors import ConfigError, DataError
from odfa.settings import apply
from odfa.tasks.language.text import TokenSplit
from odfa.tasks.vision.classify import Classify
from odfa.tasks.vision.digits import DigitsData, load_digits

_GOLDEN_TEST_LABELS = [5, 2, 9, 7, 5, 9, 5, 5, 7, 5, 3, 5]
_GOLDEN_VALIDATION_LABELS = [9, 1, 3, 6, 7, 1, 9, 4, 6, 4, 4, 1]


def _rows(part: data.Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in part.x_ND}


def test_digits_parts_cover_the_source_without_overlap() -> None:
    from sklearn.datasets import load_digits as load_source

    splits = load_digits(validation=200)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [1200, 200, 397]
    pixels, labels = load_source(return_X_y=True)
    ours = sorted((*x.tolist(), int(y)) for part in parts for x, y in zip(part.x_ND * 16, part.y_N, strict=True))
    assert ours == sorted((*x.tolist(), int(y)) for x, y in zip(pixels, labels, strict=True))
    assert not _rows(splits.train) & _rows(splits.test)


def test_digits_test_part_does_not_depend_on_the_validation_size() -> None:
    small, large = load_digits(validation=100), load_digits(validation=500)
    assert torch.equal(small.test.x_ND, large.test.x_ND)
    assert torch.equal(small.test.y_N, large.test.y_N)


def test_digits_split_is_stable() -> None:
    assert load_digits().test.y_N[:12].tolist() == _GOLDEN_TEST_LABELS
    assert load_digits().validation.y_N[:12].tolist() == _GOLDEN_VALIDATION_LABELS


@given(num=st.integers(2, 300), share=st.floats(0.01, 0.99), name=st.integers(0, 2**40))
def test_split_by_key_is_a_partition(num: int, share: float, name: int) -> None:
    held_out = min(max(1, int(num * share)), num - 1)
    kept_N, held_N = data.split_by_key(num, held_out, name=name)
    assert len(held_N) == held_out
    assert sorted([*kept_N.tolist(), *held_N.tolist()]) == list(range(num))


@pytest.mark.parametrize("held_out", [0, -1, 10, 11])
def test_split_that_leaves_nothing_is_refused(held_out: int) -> None:
    with pytest.raises(DataError, match=r"choose 1 to 9"):
        data.split_by_key(10, held_out, name=0)


@given(num=st.integers(1, 200), seed=st.integers(0, 2**60), epoch=st.integers(0, 10**6))
def test_order_is_a_permutation_and_a_pure_function(num: int, seed: int, epoch: int) -> None:
    order_N = data.order(num, seed=seed, epoch=epoch)
    assert sorted(order_N.tolist()) == list(range(num))
    torch.manual_seed(epoch)
    assert torch.equal(order_N, data.order(num, seed=seed, epoch=epoch))


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = [data.order(1000, seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order_N.tolist()) for order_N in orders}) == 9


def test_standardised_uses_training_statistics_only() -> None:
    raw = load_digits()
    shifted = data.Splits(
        train=raw.train,
        validation=raw.validation,
        test=data.Split(x_ND=raw.test.x_ND + 5, y_N=raw.test.y_N),
        num_classes=10,
        source="shifted",
    )
    ours, theirs = raw.standardised(), shifted.standardised()
    assert abs(ours.train.x_ND.double().mean().item()) < 1e-6
    assert abs(ours.train.x_ND.double().std().item() - 1) < 1e-6
    assert torch.equal(ours.train.x_ND, theirs.train.x_ND)
    assert (theirs.test.x_ND - ours.test.x_ND).min() > 1


def _splits(*, x: float = 0.5, y: int = 1) -> data.Splits:
    good = data.Split(x_ND=torch.rand(6, 3), y_N=torch.arange(6) % 3)
    bad = data.Split(x_ND=good.x_ND.clone(), y_N=good.y_N.clone())
    bad.x_ND[4, 2], bad.y_N[4] = x, y
    return data.Splits(train=good, validation=bad, test=good, num_classes=3, source="made up")


@pytest.mark.parametrize("x", [float("nan"), float("inf"), -float("inf")])
def test_inputs_that_are_not_finite_are_refused(x: float) -> None:
    assert _splits().check()
    with pytest.raises(DataError, match=r"made up, validation part: sample 4 contains NaN or infinity"):
        _splits(x=x).check()


@pytest.mark.parametrize("y", [-1, 3, -100])
def test_labels_out_of_range_are_refused(y: int) -> None:
    with pytest.raises(DataError, match=rf"label {y} of sample 4 is outside 0…2"):
        _splits(y=y).check()


def test_constant_inputs_are_refused() -> None:
    part = data.Split(x_ND=torch.ones(4, 2), y_N=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DataError, match="all equal"):
        data.Splits(train=part, validation=part, test=part, num_classes=1, source="flat").standardised()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=3, max_size=3), min_size=2, max_size=9))
def test_bytes_are_standardised_like_float64(rows: list[list[int]]) -> None:
    x_ND = torch.tensor(rows, dtype=torch.uint8)
    part = data.Split(x_ND=x_ND, y_N=torch.zeros(len(rows), dtype=torch.int64))
    splits = data.Splits(train=part, validation=part, test=part, num_classes=1, source="bytes")
    wide_ND = x_ND.double()
    if x_ND.min() == x_ND.max():
        with pytest.raises(DataError, match="all equal"):
            splits.standardised()
        return
    ours_ND = splits.standardised().test.x_ND
    assert ours_ND.dtype == torch.float32
    torch.testing.assert_close(ours_ND.double(), (wide_ND - wide_ND.mean()) / wide_ND.std(), rtol=1e-5, atol=1e-6)
    assert torch.equal(part.x_ND, torch.tensor(rows, dtype=torch.uint8))


def test_standardising_bytes_takes_the_result_and_little_more() -> None:
    """In a process of its own: its peak is above what it held before by the float32 inputs, not by several copies."""
    code = (
        "import resource, torch; from odfa import data\n"
        "part = data.Split(x_ND=torch.randint(0, 256, (30_000, 784), dtype=torch.uint8), y_N=torch.zeros(30_000))\n"
        "few = data.Split(x_ND=part.x_ND[:9], y_N=part.y_N[:9])\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "def run(train): data.Splits(train=train, validation=few, test=few, num_classes=1, source='').standardised()\n"
        "run(few); before = peak(); run(part); print((peak() - before) / (4 * part.x_ND.numel()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert float(done.stdout) < 1.35


@pytest.mark.parametrize("limit", [None, 50, 300])
def test_peek_tells_what_load_gives(limit: int | None) -> None:
    config = DigitsData(validation=150, limit=limit)
    assert config.peek() == Classify().load(config).shape


def test_digits_take_no_path() -> None:
    with pytest.raises(ConfigError, match=r"'data\.path'; these have it: data=climate.*data=fashion"):
        apply(recipes.get("digits"), ["data.path=somewhere"])


@pytest.mark.parametrize(
    "part",
    [
        data.Split(x_ND=torch.ones(2, 3), y_N=torch.zeros(2).long()),
        data.FieldSplit(
            x_ND=torch.ones(2, 3), y_N=torch.ones(2, 4), weight_G=torch.ones(4), unit=2.0, names=("first", "second")
        ),
        TokenSplit(x_ND=torch.ones(2, 3).long(), y_N=torch.ones(2, 3).long(), bytes_V=torch.ones(5).long()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_every_tensor_of_a_part_is_moved_and_nothing_else_changes(part: data.Split) -> None:
    moved, stayed = part.to("meta"), part.to("cpu")
    assert type(moved) is type(stayed) is type(part)
    for name, value in vars(part).items():
        if isinstance(value, torch.Tensor):
            there = vars(moved)[name]
            assert (there.is_meta, there.shape, there.dtype) == (True, value.shape, value.dtype)
            assert vars(stayed)[name] is value
        else:
            assert vars(moved)[name] == value
