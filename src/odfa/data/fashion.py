"""Fashion-MNIST, 70,000 images of clothes, 28 x 28 pixels (Xiao et al., arXiv 1708.07747), or an idx folder like it."""

import hashlib
from pathlib import Path

from odfa.data.idx import read_idx, read_idx_shape
from odfa.data.splits import DataShape, Split, Splits, split_by_key
from odfa.errors import DataError

DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package `dataset-fashion-mnist` puts the files."""

_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
_PEAK = 255.0
_NUM_CLASSES = 10
_VALIDATION_KEY = 3


def load_fashion(path: str | None = None, *, validation: int = 5000) -> Splits:
    """Pixels in [0, 1]; `validation` images are held out of the 60,000 training images by a fixed key.

    The four files may be gzipped or plain. Those of the default folder must have the package's SHA-256; a folder of
    the user's own may hold any images of one size with labels 0…9.

    Raises:
        DataError: files are missing, corrupt, do not fit each other, or hold labels out of range.
    """
    parts = {}
    for name in ("train", "t10k"):
        images_NYX = read_idx(_find(path, f"{name}-images-idx3-ubyte"), axes=3)
        labels_N = read_idx(_find(path, f"{name}-labels-idx1-ubyte"), axes=1)
        parts[name] = Split(x_ND=images_NYX.flatten(1).float().div_(_PEAK), y_N=labels_N.long())
    if parts["train"].x_ND.shape[1] != parts["t10k"].x_ND.shape[1]:
        raise DataError(f"{_folder(path)}: training and test images differ in size; put one data set there")
    whole = parts["train"]
    kept_N, held_N = split_by_key(min(len(whole.x_ND), len(whole.y_N)), validation, name=_VALIDATION_KEY)
    return Splits(
        train=Split(x_ND=whole.x_ND[kept_N], y_N=whole.y_N[kept_N]),
        validation=Split(x_ND=whole.x_ND[held_N], y_N=whole.y_N[held_N]),
        test=parts["t10k"],
        num_classes=_NUM_CLASSES,
        source=str(_folder(path)),
    ).check()


def peek_fashion(path: str | None = None, *, validation: int = 5000) -> DataShape:
    """Sizes from the files' headers.

    Raises:
        DataError: files are missing or are not idx files.
    """
    num_train, height, width = read_idx_shape(_find(path, "train-images-idx3-ubyte", verify=False), axes=3)
    num_test, _, _ = read_idx_shape(_find(path, "t10k-images-idx3-ubyte", verify=False), axes=3)
    return DataShape(
        num_features=height * width,
        num_classes=_NUM_CLASSES,
        num_train=num_train - validation,
        num_validation=validation,
        num_test=num_test,
    )


def _folder(path: str | None) -> Path:
    return DEFAULT_FOLDER if path is None else Path(path).expanduser()


def _find(path: str | None, stem: str, *, verify: bool = True) -> Path:
    for candidate in (_folder(path) / f"{stem}.gz", _folder(path) / stem):
        if candidate.is_file():
            if path is None and verify:
                _verify(candidate)
            return candidate
    raise DataError(
        f"{_folder(path) / stem}[.gz] is missing; install the data (Debian, Ubuntu: apt install dataset-fashion-mnist) "
        "or put the four idx files into a folder and say data.path=FOLDER"
    )


def _verify(file: Path) -> None:
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    if digest != _SHA256.get(file.name):
        raise DataError(
            f"{file} has SHA-256 {digest[:12]}…, expected {_SHA256.get(file.name, 'a .gz file')[:12]}…; "
            "reinstall dataset-fashion-mnist, or say data.path=FOLDER to use other files on purpose"
        )
