"""Training, validation and test parts as frozen tensors, and the order in which samples are visited.

Shape letters: `N` samples · `D` input features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from odfa.errors import DataError
from odfa.keys import torch_generator

_SPLIT_KEY = 0x5EED_0001
_ORDER_KEY = 0x5EED_0002


@dataclass(frozen=True, kw_only=True)
class DataShape:
    """What a data set looks like, known without loading it."""

    num_features: int
    num_classes: int
    num_train: int
    num_validation: int
    num_test: int


@dataclass(frozen=True, kw_only=True)
class Split:
    """Inputs `x_ND` (float32) and their classes `y_N` (int64)."""

    x_ND: Tensor
    y_N: Tensor

    def __len__(self) -> int:
        return len(self.y_N)

    def head(self, limit: int | None) -> "Split":
        """The first `limit` samples; all of them if `limit` is None."""
        return self if limit is None else Split(x_ND=self.x_ND[:limit], y_N=self.y_N[:limit])


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Three disjoint parts. Choices are made on `validation`; `test` is read once, at the end of a run."""

    train: Split
    validation: Split
    test: Split
    num_classes: int
    source: str

    @property
    def shape(self) -> DataShape:
        """The same description that a loader's `peek_…` gives before loading."""
        return DataShape(
            num_features=self.train.x_ND.shape[1],
            num_classes=self.num_classes,
            num_train=len(self.train),
            num_validation=len(self.validation),
            num_test=len(self.test),
        )

    def check(self) -> "Splits":
        """Return self if inputs are finite and classes lie in range.

        Raises:
            DataError: an empty part, rows and labels that do not pair up, NaN or infinity, a label out of range.
        """
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            _check_part(part, f"{self.source}, {name} part", self.num_classes)
        return self

    def limited(self, limit: int | None) -> "Splits":
        """At most `limit` samples of each part."""
        return Splits(
            train=self.train.head(limit),
            validation=self.validation.head(limit),
            test=self.test.head(limit),
            num_classes=self.num_classes,
            source=self.source,
        )

    def standardised(self) -> "Splits":
        """Inputs as (x - mean) / std, with one mean and one std over all pixels of the training part.

        Raises:
            DataError: the training inputs are all equal.
        """
        x_ND = self.train.x_ND.double()
        mean, std = x_ND.mean().item(), x_ND.std().item()
        if not std > 0:
            raise DataError(f"{self.source}: the training inputs are all equal to {mean}; look at the files")
        scaled = {
            name: Split(x_ND=(part.x_ND - mean) / std, y_N=part.y_N)
            for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test))
        }
        return Splits(**scaled, num_classes=self.num_classes, source=self.source)


def _check_part(part: Split, where: str, num_classes: int) -> None:
    if len(part.x_ND) != len(part.y_N) or not len(part.y_N):
        raise DataError(f"{where}: {len(part.x_ND)} inputs, {len(part.y_N)} labels; expected as many of both, and some")
    finite_N = torch.isfinite(part.x_ND).all(dim=1)
    if not finite_N.all():
        row = int((~finite_N).nonzero()[0])
        raise DataError(f"{where}: sample {row} contains NaN or infinity; remove or repair it")
    bad_N = (part.y_N < 0) | (part.y_N >= num_classes)
    if bad_N.any():
        row = int(bad_N.nonzero()[0])
        raise DataError(f"{where}: label {int(part.y_N[row])} of sample {row} is outside 0…{num_classes - 1}")


def split_by_key(num_samples: int, num_held_out: int, *, name: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of a split that depends on `name` and the sizes only, never on a run's seed.

    Raises:
        DataError: nothing would be left on one side.
    """
    if not 0 < num_held_out < num_samples:
        raise DataError(f"cannot hold out {num_held_out} of {num_samples} samples; choose 1 to {num_samples - 1}")
    shuffled_N = torch.randperm(num_samples, generator=torch_generator(_SPLIT_KEY, name))
    return shuffled_N[num_held_out:], shuffled_N[:num_held_out]


def order(num_samples: int, *, seed: int, epoch: int) -> Tensor:
    """Permutation in which epoch `epoch` visits the training samples; a pure function of its arguments."""
    return torch.randperm(num_samples, generator=torch_generator(_ORDER_KEY, seed, epoch))
