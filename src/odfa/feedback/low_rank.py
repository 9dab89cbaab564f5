"""The electronic part of a rule: a low-rank approximation of a read-out matrix, applied to the exact error."""

from typing import Any

import torch
from torch import Tensor

from odfa.keys import torch_generator

_STREAM = int.from_bytes(b"lowrank")
_OVERSAMPLING, _POWER_ITERATIONS = 8, 2
_LEAST_SHARE = 1e-4
"""Entries that hardly ever err still count this much beside the largest, so that no row is divided by zero."""


class LowRank:
    """q_NK = e_ND U_Dr V_rK, the best rank-r stand-in for a matrix M_DK that changes slowly.

    Best for errors whose entries have root mean squares w_D: of all U V it has the least |diag(w) (M - U V)|. Frequent
    tokens have errors a thousand times larger than rare ones, so a plain fit would spend its rank on rows that hardly
    matter.

    Fitted by a randomised singular value decomposition with power iterations (Halko, Martinsson & Tropp, SIAM Review
    53 (2011), algorithms 4.4 and 5.1), whose test vectors are drawn by key.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.u_Dr: Tensor | None = None
        self.v_rK: Tensor | None = None

    def fit(self, matrix_DK: Tensor, fit_number: int, e_ND: Tensor) -> None:
        """Refit to `matrix_DK` for errors like `e_ND`; the n-th fit always draws the same test vectors."""
        if not self.rank:
            return
        weight_D1 = root_mean_square(e_ND).to(matrix_DK)[:, None]
        matrix_DK = weight_D1 * matrix_DK
        width = min(self.rank + _OVERSAMPLING, *matrix_DK.shape)
        test_Kq = torch.randn(matrix_DK.shape[1], width, generator=torch_generator(_STREAM, self.rank, fit_number))
        basis_Dq = torch.linalg.qr(matrix_DK @ test_Kq.to(matrix_DK)).Q
        for _ in range(_POWER_ITERATIONS):
            basis_Dq = torch.linalg.qr(matrix_DK @ torch.linalg.qr(matrix_DK.T @ basis_Dq).Q).Q
        u_qq, s_q, v_qK = torch.linalg.svd(basis_Dq.T @ matrix_DK, full_matrices=False)
        self.u_Dr = ((basis_Dq @ u_qq) * s_q)[:, : self.rank].div_(weight_D1).contiguous()
        self.v_rK = v_qK[: self.rank].contiguous()

    def __call__(self, e_ND: Tensor) -> Tensor | None:
        """Correction for rows `e_ND`, or None before the first fit."""
        if self.u_Dr is None or self.v_rK is None:
            return None
        return e_ND @ self.u_Dr.to(e_ND) @ self.v_rK.to(e_ND)

    def state_dict(self) -> dict[str, Any]:
        """The two factors (absent before the first fit)."""
        return {} if self.u_Dr is None else {"u_Dr": self.u_Dr, "v_rK": self.v_rK}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.u_Dr, self.v_rK = state.get("u_Dr"), state.get("v_rK")


def root_mean_square(e_ND: Tensor) -> Tensor:
    """w_D, over rows, at least a small share of its largest entry; all ones if there is no error at all."""
    square_D = e_ND.square().mean(0)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(square_D)  # all processes must fit the same correction
    weight_D = square_D.sqrt_()
    largest = weight_D.max()
    return weight_D.clamp_(min=float(largest) * _LEAST_SHARE) if largest > 0 else torch.ones_like(weight_D)
