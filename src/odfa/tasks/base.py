"""The abstract classes of data, networks and tasks.

Each is a settings class: `data=KIND`, `network=KIND` and `task=KIND` choose one, and `data.NAME=VALUE` and so on set
its fields. A task works with data if its `takes` contains their `holds` (classes, fields or tokens), and with a network
if the network's `returns` contains its `asks` (classes, fields, tokens or noise); other packages may use words of their
own.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from odfa.data import DataShape, Split, Splits
from odfa.errors import ConfigError
from odfa.settings import MAX_LAYERS, MAX_WIDTH, Settings, kinds_of, require, require_counts, shown, tag_of

_EVALUATION_BATCH = 500
"""Samples that pass through the network at once in evaluation."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Name of the figure by which runs are compared, and which direction is better."""

    name: str
    better: str
    """higher or lower."""


@dataclass(frozen=True, kw_only=True)
class AbstractData(Settings, ABC, room="odfa.tasks", group="odfa.data"):
    """Where data are and how they are cut into training, validation and test part.

    Fields of the type `Path | None` are saved as absolute paths and ignored when two runs are compared, since the
    fingerprint identifies the data.
    """

    holds: ClassVar[str]
    """What the targets of the samples are: classes, fields, tokens, or another word that a task takes."""

    @abstractmethod
    def load(self) -> Splits:
        """Read the three parts; the task prepares them afterwards.

        Raises:
            DataError: data are missing or corrupt. MissingExtra: the package that reads them is not installed.
        """

    @abstractmethod
    def peek(self) -> DataShape:
        """Sizes of the three parts, without loading them if the files allow it.

        Raises:
            DataError, MissingExtra: what `load` raises.
        """

    def check(self, shape: DataShape) -> None:
        """Refuse settings that do not fit the sizes of these data.

        Raises:
            SettingError: a setting is out of range for these data.
        """

    def augmented(self, batch: Split, shape: DataShape) -> Split:
        """The batch with random changes for one training step, drawn from torch's current random state."""
        return batch


@dataclass(frozen=True, kw_only=True)
class LimitedData(AbstractData):
    """Data whose parts can be limited to their first samples."""

    limit: int | None = None
    """At most this many samples in each part, for quick runs; none: all."""

    def __post_init__(self) -> None:
        require_counts(self, "limit", what="a positive number of samples or none")

    def cut(self, shape: DataShape) -> DataShape:
        """The sizes that `Splits.limited` leaves of these."""
        most = self.limit or max(shape.num_train, shape.num_validation, shape.num_test)
        return replace(
            shape,
            num_train=min(most, shape.num_train),
            num_validation=min(most, shape.num_validation),
            num_test=min(most, shape.num_test),
        )


@dataclass(frozen=True, kw_only=True)
class AbstractNetwork(Settings, ABC, room="odfa.tasks", group="odfa.networks"):
    """Settings of a network: they build it, and name its blocks and its sizes before it is built."""

    returns: ClassVar[frozenset[str]]
    """What the built network returns: classes, fields, tokens, noise, or another word that a task asks for."""
    of_head: ClassVar[tuple[str, ...]] = ()
    """Settings that say how the head starts and nothing else: no rule that sets the head reads them."""

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
        """Names of the norms in front of the MLPs, where these leave the residual stream; empty without branches."""
        return ()

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps at the end of attention and MLP; empty without branches."""
        return ()

    @property
    def learned(self) -> bool:
        """Whether `build` returns weights that were trained before, which no rule may overwrite."""
        return False

    def check_splits(self, splits: Splits) -> None:
        """Refuse data that weights which have learned before cannot read.

        Raises:
            ConfigError: they learned on data of another form.
        """

    def check_sizes(self, shape: DataShape) -> None:
        """Refuse a network whose blocks, widths or number of outputs cannot be those of any network.

        Raises:
            ConfigError: no block, a name given twice, a width that is not positive, or not one width for each block.
        """
        told, names = f"network={tag_of(self)}", list(self.blocks)
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"{told}: expected blocks to be one or more names, each once, got {shown(names)}")
        for what, widths in (("widths", self.widths), ("signal_widths", self.signal_widths(shape))):
            if len(widths) != len(names) or not all(isinstance(width, int) and width > 0 for width in widths):
                raise ConfigError(
                    f"{told}: expected {what} to be one positive integer for each of its {len(names)} blocks, got "
                    f"{shown(widths)}"
                )
        outputs = self.num_outputs(shape)
        if not isinstance(outputs, int) or outputs < 1:
            raise ConfigError(f"{told}: expected num_outputs to be a positive integer, got {shown(outputs)}")

    @abstractmethod
    def num_outputs(self, shape: DataShape) -> int:
        """Width of an error row: number of outputs of the head."""

    def num_rows(self, shape: DataShape) -> int:
        """Number of error rows of a sample."""
        return 1

    def signal_widths(self, shape: DataShape) -> tuple[int, ...]:
        """Width of the signal of each block, first to last: all values of its output that belong to one error row."""
        return self.widths

    @abstractmethod
    def build(self, shape: DataShape) -> nn.Module:
        """The network for data of these sizes, on torch's default device and in its default precision; initial weights
        are drawn from torch's current random state.

        Raises:
            ConfigError: the network does not fit the data. MissingExtra: its library is not installed.
        """

    def example(self, shape: DataShape, batch_size: int) -> tuple[Tensor, ...]:
        """Inputs of the right shapes and types on torch's default device; their values mean nothing."""
        return (torch.empty(batch_size, shape.num_features),)


class StackNetwork(AbstractNetwork):
    """A stack of `layers` blocks on a residual stream of one `width`; subclasses declare both as fields."""

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


class LossModel(nn.Module, ABC):
    """A model with its cross-entropy, called in place of the model whose outputs are too many to be there at once."""

    @abstractmethod
    def forward(self, targets: Tensor, *, reduction: Literal["mean", "sum"] = "mean", **inputs: Any) -> Tensor:
        """Mean or sum of the cross-entropies of the outputs for these inputs; targets of -100 do not count."""


@dataclass(frozen=True, kw_only=True)
class AbstractTask(Settings, ABC, room="odfa.tasks", group="odfa.tasks"):
    """A task: the loss that is minimised, and the figures by which a part is evaluated."""

    takes: ClassVar[frozenset[str]]
    """The words of `AbstractData.holds` that the task can learn from."""
    asks: ClassVar[str]
    """The word that must be in `AbstractNetwork.returns`."""
    of_classes: ClassVar[bool] = True
    """Whether the outputs are logits for a cross-entropy; False: they are values."""
    labelled: ClassVar[bool] = False
    """Whether `targets` gives what outputs are compared with, which some rules need beside the error."""
    by_rows: ClassVar[bool] = False
    """Whether `loss` and `evaluate` take a `LossModel`, too, as the loss is the cross-entropy of the outputs and
    nothing else (`memory.head_rows`)."""
    samples: ClassVar[str] = ""
    """Word of the settings by which `odfa sample` samples from a run (`odfa.lab.SampleSettings`): a kind, an entry
    point of `odfa.samples`, or package.module:Name; empty: the task offers no samples."""

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """The figure by which runs are compared; `evaluate` returns its value under its name."""

    def prepared(self, splits: Splits) -> Splits:
        """The parts after the changes that the network expects, such as standardisation."""
        return splits

    @abstractmethod
    def loss(self, model: nn.Module, batch: Split) -> Tensor:
        """Mean loss of a batch, a scalar; the batch is where the model is."""

    def targets(self, batch: Split) -> Tensor:
        """What outputs are compared with: labels (B,), or (B, T) for tokens, or values; see `DFA.targets`.

        Raises:
            ConfigError: the task is not `labelled`.
        """
        raise ConfigError(f"task={tag_of(self)} gives no targets; expected a labelled task")

    @abstractmethod
    def evaluate(self, model: nn.Module, part: Split) -> dict[str, float]:
        """Loss and metric over a part, which stays on the processor: pieces of it are moved to `device_of(model)`.
        Afterwards the model is in the same mode as before."""

    def references(self, data: AbstractData) -> dict[str, float]:
        """Name → metric on the test part, for predictions that need no network.

        Raises:
            DataError: data are missing or corrupt.
        """
        return {}

    def load(self, data: AbstractData) -> Splits:
        """The three parts: loaded, fingerprinted, then prepared and checked.

        Raises:
            ConfigError: the data are those of another task. DataError, MissingExtra: what `AbstractData.load` raises.
        """
        self.check_data(data)
        # fingerprinted before they are prepared, so that a change of the preparation does not look like other data
        return self.prepared(data.load().fingerprinted()).check()

    def check_data(self, data: AbstractData) -> None:
        """Refuse data of another task.

        Raises:
            ConfigError: this task does not take what the data hold.
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
    """End of a message: the kinds of this package that fit, and what to do."""
    known = f", expected one of {', '.join(fitting)}" if fitting else ""
    return f"{known}; name one that fits, or another task"


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are; its inputs have to be moved there, for parts of data stay on the processor."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def predictions(model: nn.Module, x_ND: Tensor) -> Tensor:
    """Outputs on the processor for many samples, computed where the model is in batches that fit into memory."""
    device = device_of(model)
    return torch.cat([model(x_nD.to(device)).cpu() for x_nD in torch.split(x_ND, _EVALUATION_BATCH)])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within this context the model is in evaluation mode and no gradients are recorded; then its mode is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
