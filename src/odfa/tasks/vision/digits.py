"""1,797 handwritten digits of 8 x 8 pixels, part of scikit-learn (UCI Optical Recognition of Digits)."""

from dataclasses import dataclass

import torch

from odfa.data import DataShape, Split, Splits, check_held_out, needs, split_by_key
from odfa.tasks.vision.images import ImageData

_NUM_SAMPLES = 1797
_NUM_TEST = 397
_PEAK = 16.0
"""Largest value of a pixel."""
_IMAGE = (1, 8, 8)
_TEST_KEY, _VALIDATION_KEY = 1, 2
"""Keys of the samples that are held out; they never change, so that all runs share the test part."""


def load_digits(*, validation: int = 200) -> Splits:
    """Pixels in [0, 1]; 397 test digits and `validation` more are held out by fixed keys.

    Raises:
        DataError: `validation` leaves no sample to train on.
        MissingExtra: scikit-learn is not installed.
    """
    with needs("scikit-learn", "the digits data"):
        from sklearn.datasets import load_digits as load_sklearn_digits
    pixels, labels = load_sklearn_digits(return_X_y=True)
    x_ND, y_N = torch.tensor(pixels, dtype=torch.float32) / _PEAK, torch.tensor(labels, dtype=torch.int64)
    # the test part first: changing the size of the validation part must not change it
    rest_N, test_N = split_by_key(len(y_N), _NUM_TEST, name=_TEST_KEY)
    kept, held_out = split_by_key(len(rest_N), validation, name=_VALIDATION_KEY)
    train, chosen, test = (
        Split(x_ND=x_ND[index_N], y_N=y_N[index_N]) for index_N in (rest_N[kept], rest_N[held_out], test_N)
    )
    return Splits(
        train=train, validation=chosen, test=test, num_classes=10, image=_IMAGE, source="scikit-learn digits"
    ).check()


def peek_digits(*, validation: int = 200) -> DataShape:
    """Sizes of the parts, which are known without loading anything.

    Raises:
        DataError: `validation` leaves no sample to train on.
    """
    check_held_out(_NUM_SAMPLES - _NUM_TEST, validation)
    return DataShape(
        num_features=64,
        image=_IMAGE,
        num_classes=10,
        num_train=_NUM_SAMPLES - _NUM_TEST - validation,
        num_validation=validation,
        num_test=_NUM_TEST,
    )


@dataclass(frozen=True, kw_only=True)
class DigitsData(ImageData, kind="digits"):
    """The handwritten digits of scikit-learn, 8 x 8 pixels, ten classes."""

    def load(self) -> Splits:
        """The three parts with pixels in [0, 1]."""
        return load_digits(validation=self.validation).limited(self.limit)

    def peek(self) -> DataShape:
        """Sizes of the parts, without loading."""
        return self.cut(peek_digits(validation=self.validation))
