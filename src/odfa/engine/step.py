"""What one forward pass records until its last gate is made."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from odfa.engine.lean import Recomputation
from odfa.engine.rules import Call
from odfa.engine.stream import Replay
from odfa.engine.trace import Node, Trace


@dataclass
class Tie:
    """One tap of a forward pass: the error read there, once backward has been there, and the calls it answers for."""

    tap: int
    shape: torch.Size
    calls: range
    like: Tensor
    """No elements; of the output's dtype and device."""
    error: Tensor | None = None


@dataclass
class Probe:
    """An output that a block handed on as a leaf which asks for a gradient, to see what depends on it.

    `source` is None where the leaf has a history of its own, while measuring; `block` is None for side outputs.
    """

    source: Tensor | None
    leaf: Tensor
    block: str | None


@dataclass
class Step:
    """The record of one forward pass; what holds a graph is dropped as soon as it has been used."""

    measuring: bool = False
    trace: Trace | None = None
    """In a traced pass: where blocks begin and end in the graph."""
    calls: list[Call] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)
    recomputations: list[Recomputation] = field(default_factory=list)
    head_input: Tensor | None = None
    head_shape: torch.Size = field(default_factory=torch.Size)
    head_dtype: torch.dtype = torch.float32
    ran: int = 0
    ties: list[Tie] = field(default_factory=list)
    link: Tensor | None = None
    """Several taps: what ties the next gate to those before."""
    gates: set[Node] = field(default_factory=set)
    """The gates at the taps."""
    reads: list[Node] = field(default_factory=list)
    """Where what the taps (and, in residual wiring, the head) read comes from."""
    refused: bool = False
    """A check at the tap failed; its message is the one to be heard."""
    exact: bool = False
    """What runs now is backpropagation: measuring, when the local gradients are done, or looking for the batch."""
    watching: bool = False
    """In this pass blocks hand on probes, because sizes do not tell where the batch lies."""
    probes: list[Probe] = field(default_factory=list)
    outputs: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)
    """What was found at the taps, and what the modules there read."""
    keeps_signals: bool = False
    """Residual edges around blocks need the signals once more."""
    signals: dict[int, Tensor] = field(default_factory=dict)
    """By number of call, where they are kept."""
    delta: Tensor | None = None
    """Residual wiring: the signal at the last block's output, which all blocks receive."""
    fans: int = 0
    """Gates at the last block (residual wiring); the newest one is at its true last call."""
    deferred: dict[str, list[Tensor]] = field(default_factory=dict)
    """Signals of deferred calls by block, in order of calls; taken from the end, as recomputation runs backwards."""
    waiting: int = 0
    """Deferred calls that autograd has not run again yet."""

    replay: Replay | None = None
    """Streaming: how to run the model again."""
    dark: bool = False
    """Streaming: a block is running without a graph; gradients are switched on again behind it."""

    def close(self) -> None:
        """Let go of graphs; close recomputations that an interrupted forward left open, newest first."""
        while self.recomputations:
            self.recomputations.pop().close()
        self.reads, self.gates = [], set()
        self.sources, self.head_input, self.link, self.trace = [], None, None, None
        self.probes, self.outputs = [], []
