"""The contracts: data that are read, a network that is built from settings, a task that says what is learned.

Each is a settings class: `data=KIND`, `network=KIND` and `task=KIND` choose one, its fields are `data.NAME=VALUE` and
so on. Three words tell whether they fit each other: what data hold (classes, fields, tokens), what a network returns
(classes, fields, tokens, noise) and which of both a task needs; other packages may bring words of their own.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from odfa.data import DataShape, Split, Splits
from odfa.errors import ConfigError
from odfa.settings import MAX_LAYERS, MAX_WIDTH, Settings, kinds_of, require, require_counts, tag_of

_EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The figure that runs are compared by."""

    name: str
    better: str
    """higher or lower."""


@dataclass(frozen=True, kw_only=True)
class AbstractData(Settings, ABC, room="odfa.tasks", group="odfa.data"):
    """Where data are and how they are cut into three parts.

    Fields of the type `Path | None` are places: a run folder keeps them whole, and they are no part of what makes two
    runs equal, since data are known by their fingerprint.
    """

    holds: ClassVar[str]
    """What a sample is to be told: classes, fields, tokens, or another word that a task takes."""

    @abstractmethod
    def load(self) -> Splits:
        """The three parts as the files have them.

        Raises:
            DataError: data are missing or corrupt. MissingExtra: the package that reads them is not installed.
        """

    @abstractmethod
    def peek(self) -> DataShape:
        """Sizes of the three parts, without loading them where that can be.

        Raises:
            DataError, MissingExtra: what `load` raises.
        """

    def check(self, shape: DataShape) -> None:
        """Refuse settings that do not fit the sizes of the data.

        Raises:
            SettingError: a setting is out of range for these data.
        """

    def augmented(self, batch: Split, shape: DataShape) -> Split:
        """The batch as a training step sees it, drawn from torch's current random state."""
        return batch


@dataclass(frozen=True, kw_only=True)
class LimitedData(AbstractData):
    """Data of which a part can be left out."""

    limit: int | None = None
    """At most this many samples in each part, for quick runs; none: all."""

    def __post_init__(self) -> None:
        require_counts(self, "limit", what="a positive number of samples or none")

    def cut(self, shape: DataShape) -> DataShape:
        """Sizes after `Splits.limited`."""
        most = self.limit or max(shape.num_train, shape.num_validation, shape.num_test)
        return replace(
            shape,
            num_train=min(most, shape.num_train),
            num_validation=min(most, shape.num_validation),
            num_test=min(most, shape.num_test),
        )


@dataclass(frozen=True, kw_only=True)
class AbstractNetwork(Settings, ABC, room="odfa.tasks", group="odfa.networks"):
    """A network before it is built: the names of its blocks, and the error rows that it gives back."""

    returns: ClassVar[frozenset[str]]
    """What it can return: classes, fields, tokens, noise, or another word that a task asks for."""

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Width of each block's output, first to last; the last one is the width of the head's input."""

    @property
    @abstractmethod
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks in the built module, first to last."""

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the norms where the MLPs branch off the residual stream; none where nothing branches off."""
        return ()

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps that end the branches; none if there are no branches."""
        return ()

    @property
    def learned(self) -> bool:
        """Whether `build` returns weights that have learned before, which no rule may overwrite."""
        return False

    @abstractmethod
    def num_outputs(self, shape: DataShape) -> int:
        """Width of an error row: outputs of the head."""

    def num_rows(self, shape: DataShape) -> int:
        """Error rows of a sample."""
        return 1

    def signal_widths(self, shape: DataShape) -> tuple[int, ...]:
        """Values of each block's output for an error row, first to last: what random feedback has to fill."""
        return self.widths

    @abstractmethod
    def build(self, shape: DataShape) -> nn.Module:
        """The network for data of these sizes, on the current default device and of the current default precision,
        drawn from torch's current random state.

        Raises:
            ConfigError: it does not fit the data. MissingExtra: its library is not installed.
        """

    def example(self, shape: DataShape, batch_size: int) -> tuple[Tensor, ...]:
        """Inputs of the right form, on the current default device, values of no meaning."""
        return (torch.empty(batch_size, shape.num_features),)


class StackNetwork(AbstractNetwork):
    """A stack of `layers` blocks on a residual stream of one `width`; both are fields of the kind."""

    width: int
    layers: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each block's output."""
        return (self.width,) * self.layers

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value, most = getattr(self, name), MAX_LAYERS if name == "layers" else MAX_WIDTH
            require(value is None or 0 < value <= most, name, f"a positive number up to {most}", value)


@dataclass(frozen=True, kw_only=True)
class AbstractTask(Settings, ABC, room="odfa.tasks", group="odfa.tasks"):
    """What is learned: the loss of a batch, and the figures of a part."""

    takes: ClassVar[frozenset[str]]
    """Words of `AbstractData.holds` that it can learn from."""
    asks: ClassVar[str]
    """Word of `AbstractNetwork.returns` that it needs."""
    of_classes: ClassVar[bool] = True
    """Whether outputs are logits of classes, compared by a cross-entropy; False: they are values."""
    labelled: ClassVar[bool] = False
    """Whether `targets` gives what outputs are compared with, which some rules need beside the error."""
    samples: ClassVar[str] = ""
    """Word of the settings by which `odfa sample` samples from a run (`odfa.lab.SampleSettings`): a kind, an entry
    point of `odfa.samples`, or package.module:Name; empty: the task offers no samples."""

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """The figure that runs are compared by; `evaluate` returns it under its name."""

    def prepared(self, splits: Splits) -> Splits:
        """The parts as the network is to see them."""
        return splits

    @abstractmethod
    def loss(self, model: nn.Module, batch: Split) -> Tensor:
        """Mean loss of a batch, a scalar."""

    def targets(self, batch: Split) -> Tensor:
        """What outputs are compared with: labels (B,), or (B, T) for tokens, or values; see `DFA.targets`.

        Raises:
            ConfigError: the task is not `labelled`.
        """
        raise ConfigError(f"task={tag_of(self)} gives no targets; expected a labelled task")

    @abstractmethod
    def evaluate(self, model: nn.Module, part: Split) -> dict[str, float]:
        """Loss and metric over a part; the model's training mode is left as found."""

    def references(self, data: AbstractData) -> dict[str, float]:
        """The metric of predictions that need no network, on the test part.

        Raises:
            DataError: data are missing or corrupt.
        """
        return {}

    def load(self, data: AbstractData) -> Splits:
        """The three parts, checked, fingerprinted as they were read, and prepared.

        Raises:
            ConfigError: data of another task. DataError, MissingExtra: what `AbstractData.load` raises.
        """
        self.check_data(data)
        return self.prepared(data.load().fingerprinted()).check()

    def check_data(self, data: AbstractData) -> None:
        """Refuse data of another task.

        Raises:
            ConfigError: the data hold what this task does not take.
        """
        if data.holds not in self.takes:
            kinds = kinds_of(AbstractData)
            fitting = [word for word, kind in kinds.items() if kind.holds in self.takes]
            raise ConfigError(
                f"data={tag_of(data)}: task={tag_of(self)} learns from {' or '.join(sorted(self.takes))}"
                + _instead(fitting)
            )

    def check_network(self, network: AbstractNetwork) -> None:
        """Refuse a network of another task.

        Raises:
            ConfigError: the network returns what this task does not ask for.
        """
        if self.asks not in network.returns:
            kinds = kinds_of(AbstractNetwork)
            fitting = [word for word, kind in kinds.items() if self.asks in kind.returns]
            raise ConfigError(
                f"network={tag_of(network)}: task={tag_of(self)} needs a network that returns {self.asks}"
                + _instead(fitting)
            )


def _instead(fitting: list[str]) -> str:
    """What to name, where another task's kind was named; `fitting` are the kinds of this package that would do."""
    known = f", expected one of {', '.join(fitting)}" if fitting else ""
    return f"{known}; name one that does, or another task"


def predictions(model: nn.Module, x_ND: Tensor) -> Tensor:
    """Outputs for many samples, some at a time."""
    return torch.cat([model(x_nD) for x_nD in torch.split(x_ND, _EVALUATION_BATCH)])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside, the mode as found outside."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
