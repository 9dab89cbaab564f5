"""Settings of `odfa plan`: the batch, the layout of a step, the processor and the OPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from odfa.scaling.method import StepLayout
from odfa.scaling.opu import Opu, get_opu
from odfa.scaling.processor import Processor, get_processor
from odfa.settings import MAX_COUNT, Settings, require, require_counts


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Settings):
    """Batch, layout of a step, processor and OPU that a model is to be trained with."""

    tokens: int | None = None
    """Tokens (error rows) in a step; none: the recipe's batch, or 8192 for a model."""
    context: int | None = None
    """Tokens in a sequence, for models that are named by size or folder; none: 1024, or the step's tokens if fewer."""
    granularity: Literal["block", "sublayer", "linear"] = "block"
    """For GPTs, what learns by itself: whole blocks, attention and MLP, or linear layers."""
    hops: int | None = None
    """Hops of credit across the blocks; none: as many as the recipe has, 0 for GPTs and modules."""
    hop_every: int | None = None
    """Backward passes of which one computes the hops; none: as in the recipe, 1 for GPTs and modules."""
    head_rows: int | None = None
    """Tokens whose logits and error are there at a time; none: as the recipe says, or those of the whole step."""
    layout: StepLayout = field(default_factory=StepLayout)
    """How a step is laid out over devices, microbatches and OPUs."""
    processor: Processor = field(default_factory=lambda: get_processor("a100"))
    """The processor: a preset or package.module:Name, and field by field."""
    opu: Opu = field(default_factory=lambda: get_opu("opu-2021"))
    """The OPU: a preset or package.module:Name, and field by field."""

    def __post_init__(self) -> None:
        require_counts(self, "tokens", "context")
        require(self.hops is None or 0 <= self.hops <= MAX_COUNT, "hops", f"0 to {MAX_COUNT:,}, or none", self.hops)
        require_counts(self, "hop_every", "head_rows")

    def unread(self) -> Mapping[str, str]:
        """What studies read and plans do not; the link between processors where there is one."""
        bars = "does not enter the plan, which has no error bars; odfa study scaling has"
        twin = "does not enter the plan, in which no digital twin runs"
        alone = {} if self.layout.devices > 1 else {"processor.network_bytes_per_s": "layout.devices=1 sends nothing"}
        measured = [f"processor.{entry.name}" for entry in fields(self.processor) if entry.name.startswith("twin_")]
        return {"processor.uncertainty": bars, "opu.uncertainty": bars, **dict.fromkeys(measured, twin), **alone}
