"""Direct Kolen-Pollack: feedback matrices that learn as forward matrices in their place would, and so become them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from odfa.engine.calls import Call
from odfa.engine.rules.base import AbstractFeedback, Need
from odfa.engine.rules.placed import PlacedRule, Places, refuse_nonfinite
from odfa.errors import CheckpointError, NonFinite
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state, finite, shown, word
from odfa.settings import require


@dataclass(frozen=True, kw_only=True)
class KolenPollack(PlacedRule, kind="kolen_pollack"):
    """Direct Kolen-Pollack: s_l = A_l e, and when the optimiser steps A_l <- (1 - decay) A_l - rate * e h_l^T.

    h_l is what block l returned, one vector for each row of the error: averaged over tokens that share a row. e h_l^T,
    summed over the rows since the last step, is the gradient that a matrix from h_l to the outputs would get. If such a
    matrix learns by it at the same rate and decay, A_l tends to its transpose by a factor 1 - decay a step. A_l starts
    as scale / sqrt(K_l) * B_l; the projection is not used afterwards. Processes of a distributed run average e h_l^T.

    Source: Webster, Choi & Ahn, Learning the connections in direct feedback alignment (2021); Kolen & Pollack (1994).
    """

    rate: float = 0.1
    """Learning rate of the feedback."""
    decay: float = 0.001
    """Share of the feedback that is forgotten in a step."""

    needs: ClassVar[frozenset[Need]] = frozenset({"error", "block output", "optimiser step"})
    reads_matrix = True
    label = "Kolen-Pollack"
    colour = "#56B4E9"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rate >= 0, "rate", "zero or a positive number", self.rate)
        require(0 <= self.decay < 1, "decay", "a share in [0, 1)", self.decay)

    def num_vectors(self, rows: int, *, num_outputs: int) -> int:
        """None: the matrix is read, and rows are multiplied by what has been learned."""
        return 0

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """Everything, with its cost for a block as wide as the head's input."""
        products = 2 * num_outputs * width
        return f"all: learned feedback, {products:,} multiply-adds a row for a block {width} wide"

    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Matrices are made when the blocks first run."""
        return _Learned(projection, self)


class _Learned(Places):
    def __init__(self, projection: AbstractProjection, rule: KolenPollack) -> None:
        super().__init__(projection, rule, shared=False)
        self.rate, self.decay = rule.rate, rule.decay
        self.matrices: dict[str, Tensor] = {}
        """A_DK of each block."""
        self.gathered: dict[str, Tensor] = {}
        """Sum of e h^T since the last step of the optimiser, of the blocks that ran."""

    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        places = self.places(error, calls)
        refuse_nonfinite(error)
        e_ND = error.e_ND
        self.fit_matrices(e_ND, calls, [placed.width for _, placed in places])
        products: dict[str, Tensor] = {}
        with torch.autocast(e_ND.device.type, enabled=False):
            for call, (_, placed) in zip(calls, places, strict=True):
                product_DK = e_ND.T @ placed.rows(call.output.to(e_ND))
                before = products.get(call.block, self.gathered.get(call.block))
                products[call.block] = product_DK if before is None else before.to(e_ND) + product_DK
                if not finite(products[call.block]):
                    raise NonFinite(f"the output of block {call.block} times the error is not finite")
            signals = [
                placed.signal(e_ND @ self.matrices[call.block], 1.0)
                for call, (_, placed) in zip(calls, places, strict=True)
            ]
        self.gathered = {**self.gathered, **products}
        return signals

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
        moved = {block: self.moved(self.matrices[block], product) for block, product in self.gathered.items()}
        self.matrices, self.gathered = {**self.matrices, **moved}, {}

    def moved(self, matrix_DK: Tensor, product_DK: Tensor) -> Tensor:
        """The matrix after one step."""
        product_DK = product_DK.to(matrix_DK)
        if distributed.is_available() and distributed.is_initialized():
            product_DK = product_DK.clone()
            distributed.all_reduce(product_DK)
            product_DK /= distributed.get_world_size()
        return (1 - self.decay) * matrix_DK - self.rate * product_DK

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
