"""What forward passes have shown of a model: what learns from what, and whether the next pass has to be traced."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from odfa.engine import membership
from odfa.engine.executions.base import AbstractExecution
from odfa.engine.paths import Cut
from odfa.engine.step import Step
from odfa.engine.tensors import named_tensors
from odfa.error import Tap
from odfa.errors import MatchError


class Passes:
    """Grows with every traced pass. A pass is known by the blocks that ran and the outputs that came."""

    def __init__(
        self,
        model: nn.Module,
        blocks: dict[str, nn.Module],
        taps: Sequence[Tap],
        execution: type[AbstractExecution],
    ) -> None:
        self.model, self.blocks, self.taps, self.execution = model, blocks, taps, execution
        self.members: membership.Membership | None = None
        self._traced: set[object] = set()
        self._untraced: set[object] = set()
        self._trained: frozenset[int] = frozenset()
        self._behind: set[int] = set()

    def wants_trace(self) -> bool:
        """Whether the next pass has to be traced: the first, the first with other blocks or trained parameters, and
        every one where the model has ways around its blocks."""
        trained = frozenset(id(p) for p in self.model.parameters() if p.requires_grad)
        if trained != self._trained:
            self._trained, self._traced, self._untraced = trained, set(), set()
        return not self._traced or bool(self._untraced) or (self.members is not None and self.members.around)

    def note(self, step: Step, output: Any) -> list[Cut]:
        """Which parameters are fed by which signal, and which edges of the graph of this traced pass must be cut.

        Raises:
            MatchError: see `membership.trace`; streaming with fused updates where blocks share what learns.
        """
        found, cuts = membership.trace(self.model, self.blocks, step, output)
        membership.note_output(found, self.model, output, step, cuts)
        fused = any(p._post_accumulate_grad_hooks for p in self.model.parameters())
        if found.shared and fused and self.execution.runs_model_again:
            raise MatchError(
                "several blocks read something that learns (a condition, an encoder's end), and a fused optimiser "
                "would move it between two of them; use recompute=True, or an ordinary optimiser"
            )
        self._traced.add(_key(step, output))
        self._untraced.discard(_key(step, output))
        if self.members is None:
            self.members = found
        self.members.merge(found)
        exact = self.members.behind | self.members.ahead
        self._behind = {id(p) for name, p in self.model.named_parameters() if name in exact}
        return cuts

    def note_calls(self, step: Step, output: Any) -> None:
        """A pass that was not traced: if other blocks ran or other outputs came, the next are, until these come again.

        Raises:
            MatchError: the error reaches parameters that it did not reach in traced passes.
        """
        if step.wiring.feeds and _key(step, output) not in self._traced:
            self._untraced.add(_key(step, output))
        # a leaf that no traced pass met behind the taps may belong to a block, reached by a way around the cut
        new = {id(leaf) for leaf in membership.leaves_behind(step.taps.behind)} - self._behind
        if not new:
            return
        self._untraced.add(_key(step, output))
        assert self.members is not None
        local = set().union(*self.members.blocks.values())
        names = [name for name, p in self.model.named_parameters() if id(p) in new and name in local]
        if names and step.wiring.feeds:
            raise MatchError(
                f"the error now reaches {names[0]} by a way that was not there when the model was traced and may lead "
                "around the blocks; run this step again, it will be traced"
            )

    def complain_unread(self, path: str) -> str:
        """What to say when a gradient comes from a place that is not read."""
        assert self.members is not None
        names = self.members.unread.get(path, set()).difference(self.members.behind, *self.members.blocks.values())
        heads = {name.rpartition(".")[0] for name in names}
        last = next((name for name, _ in reversed(list(self.model.named_modules())) if name in heads), None)
        taps = [tap.name if tap.side == "output" else str(tap) for tap in self.taps]
        read = f"read it too, error_at={[*taps, last]!r}" if last is not None else "read the error behind it (error_at)"
        return (
            f"the loss depends on {path} and not only on {' and '.join(map(str, self.taps))}, so no block would "
            f"learn from that part of it; {read}, or attach with unread='allow' to train no more than what lies behind "
            "the blocks with it"
        )


def _key(step: Step, output: Any) -> object:
    calls = frozenset((call.block, call.deferred) for call in step.calls)
    return calls, frozenset(path for path, _ in named_tensors(output))
