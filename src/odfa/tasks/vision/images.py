"""Settings that data sets of classes and of images share: validation samples, random shifts and mirroring."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from odfa.data import DataShape, Split, augmented, split_by_key
from odfa.settings import MAX_WIDTH, require, require_counts
from odfa.tasks.base import LimitedData


@dataclass(frozen=True, kw_only=True)
class ClassData(LimitedData):
    """Samples of classes, some of which are held out of the training part for validation."""

    holds: ClassVar[str] = "classes"

    validation: int = 200
    """Number of samples that are held out of the training part; all choices are made on them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "validation", what="a positive number of samples")


@dataclass(frozen=True, kw_only=True)
class ImageData(ClassData):
    """Images of classes, which training can shift and mirror at random."""

    shift: int = 0
    """Training images are shifted at random by up to this many pixels in each direction, anew in each step."""
    flip: bool = False
    """Each training image is mirrored left to right with probability one half, anew in each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.shift <= MAX_WIDTH, "shift", "zero or more pixels, fewer than the side", self.shift)

    def check(self, shape: DataShape) -> None:
        """Refuse shifts that could move an image out of its frame.

        Raises:
            SettingError: shifts by the side or more.
        """
        assert shape.image is not None
        side = min(shape.image[1:])
        require(self.shift < side, "data.shift", f"fewer pixels than {side}, the side", self.shift)

    def augmented(self, batch: Split, shape: DataShape) -> Split:
        """The batch with its images shifted and mirrored at random."""
        assert shape.image is not None
        return augmented(batch, shape.image, shift=self.shift, flip=self.flip)


def parts_by_key(
    x_ND: Tensor, y_N: Tensor, *, test: int, validation: int, names: tuple[int, int]
) -> tuple[Split, Split, Split]:
    """Training, validation and test part; `names` are the fixed keys of what is held out for test and validation.

    Raises:
        DataError: a part would have no samples.
    """
    # the test part first: changing the size of the validation part must not change it
    rest_N, test_N = split_by_key(len(y_N), test, name=names[0])
    kept, held = split_by_key(len(rest_N), validation, name=names[1])
    train, chosen, last = (Split(x_ND=x_ND[i], y_N=y_N[i]) for i in (rest_N[kept], rest_N[held], test_N))
    return train, chosen, last
