"""What another package would bring: data, a network and a task of its own, and a recipe that names them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from odfa.data import DataShape, Split, Splits
from odfa.lab import Samples, SampleSettings
from odfa.session import AdamSettings, RunConfig
from odfa.settings import require_counts
from odfa.store import load_run
from odfa.tasks import AbstractNetwork, AbstractTask, LimitedData, Metric


@dataclass(frozen=True, kw_only=True)
class Parity(LimitedData):
    """Whether a row of signs has an even number of minus signs among its first two."""

    holds: ClassVar[str] = "parities"

    rows: int = 90
    """Rows of all parts together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "rows")

    def load(self) -> Splits:
        """Thirds."""
        x_ND = torch.randint(0, 2, (self.rows, 6), generator=torch.Generator().manual_seed(3)) * 2.0 - 1
        y_N = (x_ND[:, 0] * x_ND[:, 1] > 0).long()
        train, validation, test = (Split(x_ND=x_ND[k::3], y_N=y_N[k::3]) for k in range(3))
        splits = Splits(train=train, validation=validation, test=test, num_classes=2, source="parities")
        return splits.limited(self.limit)

    def peek(self) -> DataShape:
        """Sizes."""
        third = self.rows // 3
        return self.cut(DataShape(num_features=6, num_classes=2, num_train=third, num_validation=third, num_test=third))


@dataclass(frozen=True, kw_only=True)
class Tower(AbstractNetwork):
    """Linear maps one upon the other."""

    returns: ClassVar[frozenset[str]] = frozenset({"parities"})

    width: int = 8
    """Of each floor."""
    floors: int = 2
    """How many."""

    @property
    def widths(self) -> tuple[int, ...]:
        """One for each floor."""
        return (self.width,) * self.floors

    @property
    def blocks(self) -> tuple[str, ...]:
        """Places in the sequence."""
        return tuple(str(k) for k in range(self.floors))

    def num_outputs(self, shape: DataShape) -> int:
        """Both parities."""
        return shape.num_classes

    def build(self, shape: DataShape) -> nn.Module:
        """A sequence."""
        sizes = [shape.num_features, *self.widths]
        floors = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        return nn.Sequential(*floors, nn.Linear(self.width, shape.num_classes))


@dataclass(frozen=True, kw_only=True)
class Hinge(AbstractTask):
    """The right answer leads by a margin."""

    takes: ClassVar[frozenset[str]] = frozenset({"parities"})
    asks: ClassVar[str] = "parities"
    labelled: ClassVar[bool] = True
    samples: ClassVar[str] = "tests.recipes.outside:Answers"

    margin: float = 1.0
    """By how much."""

    @property
    def metric(self) -> Metric:
        """Share that is wrong."""
        return Metric(name="wrong", better="lower")

    def loss(self, model: nn.Module, batch: Split) -> Tensor:
        """Mean hinge."""
        return nn.functional.multi_margin_loss(model(batch.x_ND), batch.y_N, margin=self.margin)

    def targets(self, batch: Split) -> Tensor:
        """The parities."""
        return batch.y_N

    def evaluate(self, model: nn.Module, part: Split) -> dict[str, float]:
        """Loss and share that is wrong."""
        with torch.no_grad():
            wrong = (model(part.x_ND).argmax(1) != part.y_N).double().mean().item()
            return {"loss": self.loss(model, part).item(), "wrong": wrong}


@dataclass(frozen=True, kw_only=True)
class Answers(SampleSettings):
    """What each run says of rows of one sign."""

    sign: Literal["plus", "minus"] = "plus"
    """Sign of every entry."""
    rows: int = 2
    """How many rows are asked for."""

    def __post_init__(self) -> None:
        require_counts(self, "rows")

    def make(self, run_dirs: Sequence[Path | str]) -> Samples:
        """A parity for each row."""
        found = {}
        for run in map(load_run, run_dirs):
            x_ND = torch.full((self.rows, 6), 1.0 if self.sign == "plus" else -1.0)
            found[str(run.path)] = run.model(x_ND).argmax(1).tolist()
        return Samples(json=found, text="\n".join(f"{run}: {answers}" for run, answers in found.items()))


@dataclass(frozen=True, kw_only=True)
class Silent(Hinge):
    """A task that offers no samples."""

    samples: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class Broken(Hinge):
    """A task whose loss cannot be computed."""

    def loss(self, model: nn.Module, batch: Split) -> Tensor:
        """Of another size."""
        return nn.functional.cross_entropy(model(batch.x_ND), batch.y_N[:1])


@dataclass(frozen=True, kw_only=True)
class Misled(Hinge):
    """A task whose samples are none."""

    samples: ClassVar[str] = "tests.recipes.outside:Tower"


def parity() -> RunConfig:
    """A few steps."""
    return RunConfig(
        recipe="parity",
        task=Hinge(),
        network=Tower(),
        data=Parity(),
        steps=4,
        batch_size=5,
        log_every=1,
        tensorboard=False,
        threads=1,
        optimizer=AdamSettings(learning_rate=0.01),
    )


def nothing() -> int:
    """Returns no run."""
    return 3
