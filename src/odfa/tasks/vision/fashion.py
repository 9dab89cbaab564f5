"""Fashion-MNIST, 70,000 images of clothes, 28 x 28 pixels (Xiao et al., arXiv 1708.07747), or other idx files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from odfa.data import DataShape, Split, Splits, check_held_out, read_idx, read_idx_shape, split_by_key
from odfa.errors import DataError
from odfa.tasks.vision.images import ImageData

DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Folder in which the Debian package `dataset-fashion-mnist` installs the files."""

_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
FASHION_CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""Name of each class, in the order of the labels 0 to 9."""
_NUM_CLASSES = len(FASHION_CLASSES)
_VALIDATION_KEY = 3
"""Key of the images that are held out; it never changes, so that all runs choose on the same ones."""


def load_fashion(path: Path | str | None = None, *, validation: int = 5000) -> Splits:
    """Pixels as bytes (uint8); `validation` images are held out of the 60,000 training images by a fixed key.

    The four files may be gzipped or plain. Those of the default folder must have the package's SHA-256; a folder of
    the user's own may hold any images of one size with labels 0…9.

    Raises:
        DataError: files are missing, corrupt, do not fit each other, or hold labels out of range.
    """
    # headers first: files that do not fit each other are refused before their images are unpacked
    shape = peek_fashion(path, validation=validation)
    images_ND, labels_N = _read(path, "train")
    kept_N, held_N = split_by_key(shape.num_train + shape.num_validation, validation, name=_VALIDATION_KEY)
    test_ND, test_N = _read(path, "t10k")
    return Splits(
        train=Split(x_ND=images_ND[kept_N], y_N=labels_N[kept_N]),
        validation=Split(x_ND=images_ND[held_N], y_N=labels_N[held_N]),
        test=Split(x_ND=test_ND, y_N=test_N),
        num_classes=_NUM_CLASSES,
        image=shape.image,
        source=str(_folder(path)),
    ).check()


def peek_fashion(path: Path | str | None = None, *, validation: int = 5000) -> DataShape:
    """Sizes of the parts, from the headers of the files.

    Raises:
        DataError: files are missing, are not idx files, do not fit each other, or are too few to hold out `validation`.
    """
    num_train, *size = _peek(path, "train")
    num_test, *test_size = _peek(path, "t10k")
    if size != test_size:
        raise DataError(
            f"{_folder(path)}: training images are {size[0]} x {size[1]}, test images {test_size[0]} x {test_size[1]}; "
            "put one data set there"
        )
    check_held_out(num_train, validation)
    return DataShape(
        num_features=size[0] * size[1],
        image=(1, size[0], size[1]),
        num_classes=_NUM_CLASSES,
        num_train=num_train - validation,
        num_validation=validation,
        num_test=num_test,
    )


def _peek(path: Path | str | None, name: str) -> tuple[int, ...]:
    """Number, height and width of the images of one part; refuses another number of labels."""
    shape = read_idx_shape(_find(path, f"{name}-images-idx3-ubyte"), axes=3)
    (num_labels,) = read_idx_shape(_find(path, f"{name}-labels-idx1-ubyte"), axes=1)
    if shape[0] != num_labels:
        raise DataError(
            f"{_folder(path)}: {name} has {shape[0]} images and {num_labels} labels; expected one label per image, "
            "put one data set there"
        )
    return shape


def _read(path: Path | str | None, name: str) -> tuple[Tensor, Tensor]:
    """Images of one part as rows of bytes (N, D), and their labels (N,)."""
    images, labels = (_find(path, f"{name}-{rest}") for rest in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    if path is None:  # in the system's folder only: files of the user's own may hold other images
        for file in (images, labels):
            _verify(file)
    return read_idx(images, axes=3).flatten(1), read_idx(labels, axes=1).long()


def _folder(path: Path | str | None) -> Path:
    return DEFAULT_FOLDER if path is None else Path(path).expanduser()


def _find(path: Path | str | None, stem: str) -> Path:
    for candidate in (_folder(path) / f"{stem}.gz", _folder(path) / stem):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{_folder(path) / stem}[.gz] is missing; install the data (Debian, Ubuntu: apt install dataset-fashion-mnist) "
        "or put the four idx files into a folder and say data.path=FOLDER"
    )


def _verify(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    if digest != _SHA256.get(file.name):
        raise DataError(
            f"{file} has SHA-256 {digest[:12]}…, expected {_SHA256.get(file.name, 'a .gz file')[:12]}…; "
            "reinstall dataset-fashion-mnist, or say data.path=FOLDER to use other files on purpose"
        )


@dataclass(frozen=True, kw_only=True)
class FashionData(ImageData, kind="fashion"):
    """Fashion-MNIST, or idx files of other images of one size in ten classes."""

    path: Path | None = None
    """Folder with the four idx files; none: the folder of the Debian package dataset-fashion-mnist."""

    def load(self) -> Splits:
        """The three parts with pixels as bytes."""
        return load_fashion(self.path, validation=self.validation).limited(self.limit)

    def peek(self) -> DataShape:
        """Sizes of the parts, from the headers of the files."""
        return self.cut(peek_fashion(self.path, validation=self.validation))
