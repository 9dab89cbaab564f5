"""The idx reader against bytes written by hand, and every way a file can be wrong."""

import gzip
import math
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.garments import idx, write_images

from odfa import data
from odfa.errors import DataError
from odfa.tasks.vision import fashion
from odfa.tasks.vision.classify import Classify
from odfa.tasks.vision.digits import load_digits, peek_digits
from odfa.tasks.vision.fashion import DEFAULT_FOLDER, FashionData, load_fashion, peek_fashion


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3), zipped=st.booleans(), start=st.integers(0, 255))
def test_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], zipped: bool, start: int
) -> None:
    values = [(start + 7 * i) % 256 for i in range(math.prod(shape))]
    file = tmp_path_factory.mktemp("idx") / ("a.gz" if zipped else "a")
    content = idx(tuple(shape), bytes(values))
    file.write_bytes(gzip.compress(content) if zipped else content)
    read = data.read_idx(file, axes=len(shape))
    assert tuple(read.shape) == tuple(shape) == data.read_idx_shape(file, axes=len(shape))
    assert read.flatten().tolist() == values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an idx file"),
        (b"\x1f\x8b\x08\x00", "expected an idx file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "got type 13 with 1"),
        (idx((2, 2), b"abcd"), "got type 8 with 2"),
        (b"\0\0\x08\x01\0\0", "header is truncated"),
        (idx((0,), b""), "declares shape"),
        (idx((2**32 - 1,), b"abc"), "only 3"),
        (idx((4,), b"abc"), "declares 4 values, the file holds only 3"),
        (idx((2,), b"abc"), "declares 2 values, the file holds more"),
    ],
)
def test_wrong_bytes_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "bad"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.read_idx(file, axes=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_no_room_is_made_for_what_a_header_only_claims(tmp_path: Path, zipped: bool) -> None:
    write_images(tmp_path, side=4, train=30, test=12)
    for name in ("train", "t10k"):
        file = tmp_path / f"{name}-images-idx3-ubyte"
        content = idx((30 if name == "train" else 12, 20_000, 20_000), bytes(480))
        file.unlink()
        file = file.with_name(f"{file.name}.gz") if zipped else file
        file.write_bytes(gzip.compress(content) if zipped else content)
    tracemalloc.start()
    for action in (peek_fashion, load_fashion):
        with pytest.raises(DataError, match=r"train-images-.* the header declares 12000000000 values, "):
            action(str(tmp_path), validation=10)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_every_truncation_of_a_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(idx((40,), bytes(range(40))))
    file = tmp_path / "cut.gz"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError):
            data.read_idx(file, axes=1)


def test_a_damaged_gzip_never_gives_other_values(tmp_path: Path) -> None:
    whole = gzip.compress(idx((40,), bytes(range(40))))
    refused = 0
    file = tmp_path / "damaged.gz"
    for position in range(10, len(whole)):
        damaged = whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :]
        file.write_bytes(damaged)
        try:
            assert data.read_idx(file, axes=1).tolist() == list(range(40)), f"byte {position}"
        except DataError:
            refused += 1
    assert refused >= len(whole) - 12, "only padding bits may go unnoticed"


def test_a_folder_of_ones_own_is_read(tmp_path: Path) -> None:
    write_images(tmp_path, side=4, train=30, test=12)
    config = FashionData(path=str(tmp_path), validation=10)
    splits = Classify().load(config)
    assert splits.shape == config.peek()
    assert splits.shape == data.DataShape(
        num_features=16, num_classes=10, num_train=20, num_validation=10, num_test=12, image=(1, 4, 4)
    )


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path, side=4, train=30, test=12, label=10)
    with pytest.raises(DataError, match=r"label 10 of sample \d+ is outside 0…9"):
        load_fashion(str(tmp_path), validation=10)


def test_images_and_labels_that_do_not_pair_up_are_refused(tmp_path: Path) -> None:
    for name, num_images in (("t10k", 12), ("train", 30)):
        write_images(tmp_path, side=4, train=30, test=12)
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx((3,), b"\1\2\3"))
        for action in (load_fashion, peek_fashion):
            with pytest.raises(DataError, match=f"{name} has {num_images} images and 3 labels"):
                action(str(tmp_path), validation=10)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path, side=4, train=30, test=12)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx((12, 2, 3), bytes(72)))
    for action in (load_fashion, peek_fashion):
        with pytest.raises(DataError, match=r"training images are 4 x 4, test images 2 x 3"):
            action(str(tmp_path), validation=10)


@pytest.mark.parametrize("validation", [30, 5000])
def test_more_validation_than_data_is_refused(tmp_path: Path, validation: int) -> None:
    write_images(tmp_path, side=4, train=30, test=12)
    for action in (load_fashion, peek_fashion):
        with pytest.raises(DataError, match=f"cannot hold out {validation} of 30 samples; choose 1 to 29"):
            action(str(tmp_path), validation=validation)
    for action in (load_digits, peek_digits):
        with pytest.raises(DataError, match="cannot hold out 1400 of 1400 samples"):
            action(validation=1400)


def test_missing_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset-fashion-mnist.*data\.path=FOLDER"):
        load_fashion(str(tmp_path / "nowhere"))


def test_the_default_folder_is_checked_by_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, side=4, train=30, test=12)
    monkeypatch.setattr(fashion, "DEFAULT_FOLDER", tmp_path)
    with pytest.raises(DataError, match=r"has SHA-256 .*reinstall dataset-fashion-mnist"):
        load_fashion(validation=10)


@pytest.mark.skipif(not DEFAULT_FOLDER.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist_as_packaged() -> None:
    splits = load_fashion()
    assert splits.shape == data.DataShape(
        num_features=784, num_classes=10, num_train=55_000, num_validation=5_000, num_test=10_000, image=(1, 28, 28)
    )
    assert splits.shape == peek_fashion()
    assert splits.test.y_N.bincount().tolist() == [1000] * 10
    assert (splits.train.y_N.bincount() + splits.validation.y_N.bincount()).tolist() == [6000] * 10
    assert splits.train.x_ND.dtype == torch.uint8
    assert (splits.train.x_ND.min(), splits.train.x_ND.max()) == (0, 255)
