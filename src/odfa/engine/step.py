"""One forward pass with its backward: its record, and the two machines at work."""

from dataclasses import dataclass

from odfa.engine.executions.base import AbstractExecution
from odfa.engine.record import Record
from odfa.engine.wirings.base import AbstractWiring


@dataclass(kw_only=True)
class Step(Record):
    """The record of one forward pass with its machines; what holds a graph is dropped when the forward pass ends."""

    wiring: AbstractWiring
    """How signals get from the tap to the blocks, with what it keeps of this pass."""
    execution: AbstractExecution
    """How blocks run in this pass, with what it keeps of it."""

    def close(self) -> None:
        """Let go of graphs, and of recomputations that an interrupted forward pass left open."""
        self.execution.close()
        self.wiring.drop_graphs()
        self.drop_graphs()
