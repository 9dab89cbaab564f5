"""What the rules share whose feedback matrices learn: they start as slices of B, and move when the optimiser steps."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, distributed
from torch.optim import Optimizer

from odfa.engine.calls import Call
from odfa.engine.rules.placed import PlacedRule, Places
from odfa.errors import CheckpointError
from odfa.project import AbstractProjection
from odfa.saved import check_state, shown, word


@dataclass(frozen=True, kw_only=True)
class LearnedRule(PlacedRule):
    """The values are products with a matrix that learns."""

    reads_matrix = True

    def num_vectors(self, rows: int, *, num_outputs: int) -> int:
        """None: the matrix is read, and rows are multiplied by what has been learned."""
        return 0


class Learned(Places):
    """A_DK of each block, and what is gathered of it between two steps of the optimiser."""

    def __init__(self, projection: AbstractProjection, rule: LearnedRule) -> None:
        super().__init__(projection, rule, shared=False)
        self.matrices: dict[str, Tensor] = {}
        """A_DK of each block."""
        self.gathered: dict[str, Tensor] = {}
        """Sums (D, K) since the last step of the optimiser, of the blocks that ran."""

    def fit_matrices(self, e_ND: Tensor, calls: Sequence[Call], widths: Sequence[int]) -> None:
        """Matrices of blocks that run for the first time; those that are there as precise as the error, beside it."""
        new = {call.block: width for call, width in zip(calls, widths, strict=True) if call.block not in self.matrices}
        kept = {block: matrix_DK.to(e_ND) for block, matrix_DK in self.matrices.items()}
        if new:
            b_DM = self.fit(e_ND.shape[1]).matrix()
            for block, width in new.items():
                start = self.slots.slices[block].start
                gain = self.scale / (1.0 if self.projection.isometric else width**0.5)
                kept[block] = gain * b_DM[:, start : start + width].to(e_ND)
            self.projection = self.projection.shaped(*b_DM.shape)  # without the matrix that it may have stored
        self.matrices = kept

    def stepped(self, optimizer: Optimizer) -> None:
        """Move the matrices of the blocks that ran, by what processes of a distributed run have gathered on average."""
        moved = {}
        for block, sum_DK in self.gathered.items():
            matrix_DK = self.matrices[block]
            moved[block] = self.moved(matrix_DK, _averaged(sum_DK.to(matrix_DK)))
        self.matrices, self.gathered = {**self.matrices, **moved}, {}

    @abstractmethod
    def moved(self, matrix_DK: Tensor, sum_DK: Tensor) -> Tensor:
        """The matrix after one step, from the sum that was gathered for it."""

    @property
    def description(self) -> str:
        """Where the matrices start, and what they cost."""
        products = sum(matrix_DK.numel() for matrix_DK in self.matrices.values())
        cost = f"{2 * products:,} multiply-adds a row" if products else "not run yet"
        return f"electronic matrices that learn, {cost}; they start as {self.projection.identity}"

    def state_dict(self) -> dict[str, Any]:
        """The places, the matrices, and what is gathered for the next step."""
        return {**super().state_dict(), "matrices": dict(self.matrices), "gathered": dict(self.gathered)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such a rule, or its matrices have other shapes than its slices.
        """
        form = {"slots": {str: object}, "num_inputs": (None, int), "matrices": {str: Tensor}, "gathered": {str: Tensor}}
        check_state(state, form, "feedback")
        super().load_state_dict({key: state[key] for key in ("slots", "num_inputs")})
        for part in ("matrices", "gathered"):
            for block, matrix in state[part].items():
                slot = self.slots.slices.get(block)
                expected = None if slot is None else (state["num_inputs"], slot.width)
                if tuple(matrix.shape) != expected or not matrix.is_floating_point():
                    told = "no matrix" if expected is None else f"a matrix of {expected[0]} x {expected[1]}"
                    raise CheckpointError(
                        f"the saved state does not fit: {part}.{word(block)}: expected {told}, got {shown(matrix)}"
                    )
        if missing := sorted({*self.slots.slices, *state["gathered"]} - {*state["matrices"]}):
            raise CheckpointError(f"the saved state does not fit: matrices: {word(missing[0])} is missing")
        self.matrices, self.gathered = dict(state["matrices"]), dict(state["gathered"])


def _averaged(sum_DK: Tensor) -> Tensor:
    if not (distributed.is_available() and distributed.is_initialized()):
        return sum_DK
    mean_DK = sum_DK.clone()
    distributed.all_reduce(mean_DK)
    return mean_DK / distributed.get_world_size()
