"""Reading the error: at each tap a gate is set, tied to what the wiring says."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from odfa.engine.answers import Answers
from odfa.engine.gates import chained_gate, gate
from odfa.engine.handle import Handle
from odfa.engine.record import Tie
from odfa.engine.step import Step
from odfa.engine.tensors import first_tensor, map_tensors
from odfa.engine.withheld import Withheld, check_by_rows, running
from odfa.errors import MatchError


class TapReader:
    """Sets the gates at the taps of a forward pass."""

    def __init__(self, handle: Handle, answers: Answers) -> None:
        self.handle, self._answers = handle, answers

    def read(self, step: Step, number: int, value: Any, inputs: Any) -> Any:
        """`value` as it goes on from tap `number`; `inputs`: what the module there read, if it is its output.

        Raises:
            MatchError: the error cannot be read here.
        """
        step.taps.refused = True  # until every check has passed
        main = self._source(step, number, value)
        run = self._withheld(number, main)
        targets = step.wiring.targets(step)
        tie = self._tie(step, number, main, len(targets), run)
        step.taps.outputs.append((main, first_tensor(inputs)) if run is None or run.h is None else (run.h, run.h))
        step.execution.at_tap(step, tie, main, targets)
        step.taps.ties.append(tie)
        self._note_read(step, main)
        # this tap has answered for the blocks so far; the next one answers for those behind it
        step.sources = []
        step.wiring.drop_graphs()
        step.taps.refused = False
        if not step.wiring.feeds:
            return None
        tied = self._gate(step, tie, main, targets)
        if run is not None:
            run.ask = partial(self._answers.in_chunks, step, tie)
        step.taps.gates.add(tied.grad_fn)
        if step.trace is not None:
            step.trace.gates.add(tied.grad_fn)
        return map_tensors(value, lambda t: tied if t is main else t)

    @staticmethod
    def _tie(step: Step, number: int, main: Tensor, targets: int, run: Withheld | None) -> Tie:
        answered = step.taps.ties[-1].calls.stop if step.taps.ties else 0
        like = torch.empty(0, dtype=main.dtype, device=main.device)
        # the shape that the head's output would have
        shape = main.shape if run is None or run.h is None else run.h.shape[:-1] + main.shape[-1:]
        return Tie(number, shape, range(answered, len(step.calls)), targets, like, withheld=run is not None)

    def _withheld(self, number: int, main: Tensor) -> Withheld | None:
        """The run whose loss computes the head, if the error is read at the head's output.

        Raises:
            MatchError: the head is left out and the error read behind it, at several places, or in another shape than
                (B, D) or (B, T, D).
            ConfigError: the rule reads the error as a whole.
        """
        run, tap = running(), self.handle.taps[number]
        if run is None or run.h is None or tap.side == "input":
            return None
        if tap.module is not run.head or len(self.handle.taps) > 1 or run.h.ndim > 3:
            raise MatchError(
                f"the error is read at {' and '.join(map(str, self.handle.taps))}, and LinearCrossEntropy hands over "
                "that of one head alone, of shape (B, D) or (B, T, D); choose error_at, or a loss of the model's output"
            )
        if self.handle.rule.wiring.feeds:
            check_by_rows(self.handle.rule)
        return run

    @staticmethod
    def _note_read(step: Step, main: Tensor) -> None:
        """Where what is read comes from: for the trace, or for the look at leaves behind the taps."""
        at_head = step.wiring.head_input()
        if step.trace is not None:
            step.trace.ends.append(main.grad_fn)
            step.trace.head_input = at_head
        else:
            step.taps.behind += [main.grad_fn, at_head]

    def _gate(self, step: Step, tie: Tie, main: Tensor, targets: list[Tensor]) -> Tensor:
        answer = partial(self._answers.at_tap, step, tie)
        if len(self.handle.taps) == 1:
            return gate(main, targets, answer)
        tied, step.taps.link = chained_gate(main, step.taps.link, targets, answer)
        return tied

    def _source(self, step: Step, number: int, value: Any) -> Tensor:
        tap = self.handle.taps[number]
        main = first_tensor(value)
        if main is None:
            raise MatchError(f"the error cannot be read at {tap}: no floating-point tensor there; choose error_at")
        if main.ndim == 0:
            raise MatchError(f"{tap} is a single number, a loss and not an output; choose error_at in front of it")
        if any(tie.tap == number for tie in step.taps.ties):
            raise MatchError(
                f"{tap} ran twice in one forward, so there are two errors; read it elsewhere with error_at"
            )
        if not step.execution.ran:
            raise MatchError(f"{tap} ran before any block; choose error_at behind the blocks")
        return main
