"""What one forward pass and its backward leave for each other: the blocks that ran, the taps, and what was traced."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import Node

from odfa.engine.calls import Call
from odfa.engine.trace import Trace
from odfa.error import HeadError


@dataclass
class Tie:
    """One tap of a forward pass: the error read there, once backward has been there, and the calls it answers for."""

    tap: int
    shape: torch.Size
    calls: range
    targets: int
    """How many tensors the gate is tied to, so many gradients its backward returns beside that of the output."""
    like: Tensor
    """No elements; of the output's dtype and device."""
    error: Tensor | HeadError | None = None
    withheld: bool = False
    """The head was not computed: the loss does it some rows at a time, and hands the error over before backward comes
    to the gate."""
    signals: list[Tensor] | None = None
    """What the rule has answered to that error."""


@dataclass
class TapRecord:
    """What the taps read in one forward pass."""

    ties: list[Tie] = field(default_factory=list)
    outputs: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)
    """What was found at the taps, and what the modules there read."""
    gates: set[Node | None] = field(default_factory=set)
    """Nodes of the gates at the taps; outputs of the model that come from one need no guard."""
    behind: list[Node | None] = field(default_factory=list)
    """In passes that are not traced: where what the taps (and, in residual wiring, the head) read comes from."""
    targets: Tensor | None = None
    """What the outputs should have been, if the rule needs it and somebody handed it over."""
    link: Tensor | None = None
    """Several taps: the output of the newest gate that the next one takes as an input, so that backward visits all."""
    refused: bool = False
    """A check at the tap raised. `after_model` then adds no complaint of its own, because the first one says more."""

    def drop_graphs(self) -> None:
        """Forget everything that keeps a graph in memory; backward needs the ties alone."""
        self.outputs, self.gates, self.behind, self.link = [], set(), [], None


@dataclass
class Probe:
    """An output that a block handed on as a leaf which asks for a gradient, to see what depends on it.

    `source` is None where the leaf has a history of its own, while measuring; `block` is None for side outputs.
    """

    source: Tensor | None
    leaf: Tensor
    block: str | None


@dataclass
class Probes:
    """The probes of one forward pass, and whether blocks hand them on: `watching`, as sizes do not tell the batch."""

    watching: bool = False
    found: list[Probe] = field(default_factory=list)


@dataclass
class Record:
    """What wirings and executions may know of one forward pass; `Step` adds those two."""

    trace: Trace | None = None
    """In a traced pass: where blocks begin and end in the graph."""
    calls: list[Call] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)
    """Outputs of blocks, with their history, that no tap has answered for yet."""
    taps: TapRecord = field(default_factory=TapRecord)
    probes: Probes = field(default_factory=Probes)
    exact: bool = False
    """What runs now is backpropagation: measuring, when the local gradients are done, or looking for the batch."""

    def drop_graphs(self) -> None:
        """Forget what keeps a graph in memory; backward needs the calls and the ties alone."""
        self.taps.drop_graphs()
        self.sources, self.trace, self.probes = [], None, Probes(self.probes.watching)
