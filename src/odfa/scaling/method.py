"""The ways to train that are compared: how blocks learn, what projects, what is kept, what may be offloaded."""

from dataclasses import dataclass
from typing import Literal

from odfa.settings import Settings, require, require_counts

Activations = Literal["keep", "recompute", "stream"]


@dataclass(frozen=True, kw_only=True)
class PlannedMethod:
    """A way to train that is costed: one row of a plan."""

    name: str
    learning: Literal["bp", "shallow", "feedback"]
    projection: Literal["none", "digital", "optical"] = "none"
    activations: Activations = "keep"
    """keep: all are kept; recompute: from block inputs; stream: none is kept, the model runs again block by block and
    each block learns when it has run."""
    offload: bool = False
    """Whether what does not fit goes to the host's memory and comes back; feedback may stream instead of moving
    activations, whichever is faster."""


PLANNED_METHODS: dict[str, PlannedMethod] = {
    method.name: method
    for method in (
        PlannedMethod(name="bp", learning="bp"),
        PlannedMethod(name="bp+checkpointing", learning="bp", activations="recompute"),
        PlannedMethod(name="bp+offloading", learning="bp", offload=True),
        PlannedMethod(name="bp+checkpointing+offloading", learning="bp", activations="recompute", offload=True),
        PlannedMethod(name="dfa", learning="feedback", projection="digital"),
        PlannedMethod(name="dfa+offloading", learning="feedback", projection="digital", offload=True),
        PlannedMethod(name="odfa", learning="feedback", projection="optical"),
        PlannedMethod(name="odfa+streaming", learning="feedback", projection="optical", activations="stream"),
        PlannedMethod(name="odfa+offloading", learning="feedback", projection="optical", offload=True),
    )
}
"""The methods that plans and studies compare, by name."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Bytes per parameter; what travels between devices is as precise as a weight."""

    name: str
    weight: float
    gradient: float
    state: float
    """Bytes of the optimiser: moments, and a master copy where there is one."""


PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision(name="float32", weight=4, gradient=4, state=8),
        Precision(name="bfloat16", weight=2, gradient=2, state=4),
        Precision(name="mixed", weight=2, gradient=2, state=12),
    )
}
"""float32; bfloat16 throughout, weights rounded stochastically; 16-bit weights with float32 master copy and moments."""

SWITCHES = {
    "saved_backward": "blocks do not hand a gradient to their input",
    "fewer_vectors": "one error vector per sequence or batch, not per token",
    "moved_activations": "backpropagation moves activations over the link instead of recomputing them",
    "offloading": "what does not fit crosses the link",
    "parallel_blocks": "blocks on several devices learn at the same time",
    "overlap": "light works while microbatches compute",
}
"""Terms of the model that can be switched off, one at a time, to see which of them makes a crossover."""


@dataclass(frozen=True, kw_only=True)
class StepLayout(Settings):
    """How a step is laid out over devices and time."""

    vectors: Literal["token", "sequence", "batch"] = "token"
    """Error vectors: one for each token, or their sum over a sequence or over the whole batch."""
    devices: int = 1
    """Processors in a pipeline, each with an equal share of the blocks."""
    microbatches: int = 1
    """Parts of the batch that follow one another through the pipeline."""
    opus: int = 1
    """OPUs that share the error vectors."""
    precision: Literal["float32", "bfloat16", "mixed"] = "mixed"
    """Bytes per parameter: float32 16, bfloat16 8, mixed 16 of which 12 are the optimiser's; a run that has mixed
    precision by memory.precision=autocast keeps up to 2 more while a step lasts."""
    off: tuple[str, ...] = ()
    """Terms that are switched off (`SWITCHES`)."""

    def __post_init__(self) -> None:
        require_counts(self, "devices", "microbatches", "opus")
        for term in self.off:
            require(term in SWITCHES, "off", f"some of {', '.join(SWITCHES)}", term)
