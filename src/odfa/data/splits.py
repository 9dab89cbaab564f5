"""Training, validation and test parts as frozen tensors, and the order in which samples are visited.

Shape letters: `N` samples · `D` input features.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from odfa.errors import DataError
from odfa.keys import torch_generator

_SPLIT_KEY = 0x5EED_0001
_ORDER_KEY = 0x5EED_0002
_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True, kw_only=True)
class DataShape:
    """Sizes of a data set, known without loading it."""

    num_features: int
    num_classes: int
    """0: what is learned is a field."""
    num_train: int
    num_validation: int
    num_test: int
    image: tuple[int, int, int] | None = None
    """Channels, height and width of an input; None: it is no image."""
    field: tuple[int, int, int] | None = None
    """Channels, height and width of what is learned; None: a class."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Inputs `x_ND` (float32, or uint8 as read from a file) and their classes `y_N` (int64)."""

    x_ND: Tensor
    y_N: Tensor

    def __len__(self) -> int:
        return len(self.y_N)

    def head(self, limit: int | None) -> Self:
        """The first `limit` samples; all of them if `limit` is None."""
        return self if limit is None else replace(self, x_ND=self.x_ND[:limit], y_N=self.y_N[:limit])

    def take(self, index_N: Tensor) -> Self:
        """The samples with these numbers, in that order."""
        return replace(self, x_ND=self.x_ND[index_N], y_N=self.y_N[index_N])

    def to(self, device: torch.device | str) -> Self:
        """The same samples with every tensor on `device`; what is there already is not copied."""
        later = torch.device(device).type == "cuda"  # CUDA keeps what it still reads; others may not
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.to(device, non_blocking=later) for name, value in tensors.items()})


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Three disjoint parts. Choices are made on `validation`; `test` is read once, at the end of a run."""

    train: Split
    validation: Split
    test: Split
    num_classes: int
    source: str
    masked: int | None = None
    """Label of what is not learned; None: everything is."""
    image: tuple[int, int, int] | None = None
    """Channels, height and width of an input; None: it is no image."""
    fingerprint: str = ""
    """SHA-256 of the parts at the time of `fingerprinted`; empty: they have none yet."""

    @property
    def shape(self) -> DataShape:
        """The same description that a loader's `peek_…` gives before loading."""
        return DataShape(
            num_features=self.train.x_ND.shape[1],
            num_classes=self.num_classes,
            num_train=len(self.train),
            num_validation=len(self.validation),
            num_test=len(self.test),
            image=self.image,
        )

    def check(self) -> Self:
        """Return self if inputs are finite and classes lie in range.

        Raises:
            DataError: an empty part, rows and labels that do not pair up, NaN or infinity, a label out of range.
        """
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            _check_part(part, f"{self.source}, {name} part", self.num_classes, self.masked)
        return self

    def fingerprinted(self) -> Self:
        """With the fingerprint of what is in the parts now, unless there is one of what was in them before."""
        # made once, of the data as read: what a run does to them later must not make them other data
        if self.fingerprint:
            return self
        digest = hashlib.sha256(repr((self.num_classes, self.masked, self.image)).encode())
        for part in (self.train, self.validation, self.test):
            for name, value in vars(part).items():
                if value is None:  # a part without it has the fingerprint that it had before there was such a thing
                    continue
                if isinstance(value, Tensor):
                    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                    digest.update(value.contiguous().numpy().data)
                else:  # to nine digits: the last ones depend on the processor
                    text = f"{name} {value:.9g}" if isinstance(value, float) else f"{name} {value}"
                    digest.update(text.encode())
        return replace(self, fingerprint=digest.hexdigest())

    def limited(self, limit: int | None) -> Self:
        """At most `limit` samples of each part."""
        return replace(
            self, train=self.train.head(limit), validation=self.validation.head(limit), test=self.test.head(limit)
        )

    def centred(self) -> Self:
        """Inputs as x / 127.5 - 1 in float32: bytes become values in [-1, 1].

        Raises:
            DataError: inputs are not bytes.
        """
        if self.train.x_ND.dtype != torch.uint8:
            raise DataError(f"{self.source}: expected images of bytes, got {self.train.x_ND.dtype}")
        train, validation, test = (
            replace(part, x_ND=part.x_ND.float().div_(127.5).sub_(1))
            for part in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    def standardised(self) -> Self:
        """Inputs as (x - mean) / std in float32, with one mean and one std over all pixels of the training part.

        Raises:
            DataError: the training inputs are all equal.
        """
        lowest, highest = self.train.x_ND.aminmax()
        if lowest == highest:
            raise DataError(f"{self.source}: the training inputs are all equal to {lowest}; look at the files")
        mean, std = _mean_and_std(self.train.x_ND)
        train, validation, test = (
            Split(x_ND=_standardised(part.x_ND, mean, std), y_N=part.y_N)
            for part in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)


def _mean_and_std(x_ND: Tensor) -> tuple[float, float]:
    """Mean and sample standard deviation in float64, without a float64 copy of everything."""
    # two passes: the difference of the sums of squares would cancel where the mean is large against the deviation
    pieces = torch.split(x_ND, _ROWS_AT_A_TIME)
    mean = sum(x_nD.double().sum().item() for x_nD in pieces) / x_ND.numel()
    squares = sum((x_nD.double() - mean).square_().sum().item() for x_nD in pieces)
    return mean, (squares / (x_ND.numel() - 1)) ** 0.5


def _standardised(x_ND: Tensor, mean: float, std: float) -> Tensor:
    """(x - mean) / std piece by piece: torch would first make a float32 copy of all the bytes."""
    scaled_ND = torch.empty(x_ND.shape, dtype=torch.float32)
    for x_nD, scaled_nD in zip(
        torch.split(x_ND, _ROWS_AT_A_TIME), torch.split(scaled_ND, _ROWS_AT_A_TIME), strict=True
    ):
        scaled_nD.copy_(torch.sub(x_nD, mean).div_(std))
    return scaled_ND


def _check_part(part: Split, where: str, num_classes: int, masked: int | None) -> None:
    if len(part.x_ND) != len(part.y_N) or not len(part.y_N):
        raise DataError(f"{where}: {len(part.x_ND)} inputs, {len(part.y_N)} labels; expected as many of both, and some")
    if not torch.isfinite(torch.stack(part.x_ND.aminmax())).all():  # NaN passes through: no copy of the data needed
        row = int((~torch.isfinite(part.x_ND).all(dim=1)).nonzero()[0])
        raise DataError(f"{where}: sample {row} contains NaN or infinity; remove or repair it")
    bad_N = (part.y_N < 0) | (part.y_N >= num_classes)
    if masked is not None:
        bad_N &= part.y_N != masked
    if bad_N.any():
        place = tuple(bad_N.nonzero()[0].tolist())
        raise DataError(f"{where}: label {int(part.y_N[place])} of sample {place[0]} is outside 0…{num_classes - 1}")


def check_held_out(num_samples: int, num_held_out: int) -> None:
    """Refuse a split with nothing on one side.

    Raises:
        DataError: none or all of the samples would be held out.
    """
    if not 0 < num_held_out < num_samples:
        raise DataError(
            f"validation: cannot hold out {num_held_out} of {num_samples} samples; choose 1 to {num_samples - 1}"
        )


def split_by_key(num_samples: int, num_held_out: int, *, name: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of a split that depends on `name` and the sizes only, never on a run's seed.

    Raises:
        DataError: nothing would be left on one side.
    """
    check_held_out(num_samples, num_held_out)
    shuffled_N = torch.randperm(num_samples, generator=torch_generator(_SPLIT_KEY, name))
    return shuffled_N[num_held_out:], shuffled_N[:num_held_out]


def order(num_samples: int, *, seed: int, epoch: int) -> Tensor:
    """Permutation in which epoch `epoch` visits the training samples; a pure function of its arguments."""
    return torch.randperm(num_samples, generator=torch_generator(_ORDER_KEY, seed, epoch))
