"""What one forward pass records until its gate is made."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from odfa.engine.lean import Recomputation
from odfa.engine.rules import Call
from odfa.engine.stream import Replay


@dataclass
class Cut:
    """Where the graph was cut: a source tensor with its graph, and the leaf that went on in its place."""

    source: Tensor
    leaf: Tensor
    block: str | None
    """The block whose main output this is; None for side outputs and for the head's input."""


@dataclass
class Step:
    """The record of one forward pass; what holds a graph is dropped as soon as it has been used."""

    measuring: bool = False
    calls: list[Call] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    recomputations: list[Recomputation] = field(default_factory=list)
    head_input: Tensor | None = None
    head_shape: torch.Size = field(default_factory=torch.Size)
    head_dtype: torch.dtype = torch.float32
    ran: int = 0
    gated: bool = False
    refused: bool = False
    """A check at the tap failed; its message is the one to be heard."""
    gate_node: object = None
    """The gate just made, where the walk from the model's output to the gate has to stop."""
    fans: int = 0
    """Gates at the last block (residual wiring); the newest one is at its true last call."""
    deferred: dict[str, list[Tensor]] = field(default_factory=dict)
    """Signals of deferred calls by block, in order of calls; taken from the end, as recomputation runs backwards."""
    waiting: int = 0
    """Deferred calls that autograd has not run again yet."""
    broadcast: Tensor | None = None
    """Residual wiring with deferred calls: the signal at the last block's output, which all blocks receive."""

    replay: Replay | None = None
    """Streaming: how to run the model again."""
    dark: bool = False
    """Streaming: a block is running without a graph; gradients are switched on again behind it."""

    def close(self) -> None:
        """Let go of graphs; close recomputations that an interrupted forward left open, newest first."""
        while self.recomputations:
            self.recomputations.pop().close()
        self.sources, self.head_input, self.gate_node = [], None, None
