"""What one forward pass records until its gate is made."""

from dataclasses import dataclass, field

from torch import Tensor

from odfa.engine.rules import Call


@dataclass
class Cut:
    """Where the graph was cut: a source tensor with its graph, and the leaf that went on in its place."""

    source: Tensor
    leaf: Tensor
    block: str | None
    """The block whose main output this is; None for side outputs and for the head's input."""


@dataclass
class Step:
    """The record of one forward pass; `sources` and `cuts` hold graphs and are emptied as soon as they are used."""

    calls: list[Call] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    head_input: Tensor | None = None
    ran: int = 0
    gated: bool = False
    fans: int = 0
    """Fan-out nodes made; the newest one is at the true last block."""
    waiting: int = 0
    """Deferred calls that autograd has not run again yet."""
    deferred: dict[str, list[Tensor]] = field(default_factory=dict)
    """Signals of deferred calls by block, in order of calls; taken from the end, as recomputation runs backwards."""
    broadcast: Tensor | None = None
    """Residual wiring with deferred calls: the signal at the last block's output, which all blocks receive."""
