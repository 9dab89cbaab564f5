"""The electronic part of a rule: a low-rank approximation of a read-out matrix, applied to the exact error."""

from typing import Any

import torch
from torch import Tensor

from odfa.keys import mix


class LowRank:
    """q_NK = e_ND U_Dr V_rK, the best rank-r stand-in for a matrix that changes slowly.

    Fitted by a randomised singular value decomposition (Halko, Martinsson & Tropp, SIAM Review 2011) drawn by key.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.u_Dr: Tensor | None = None
        self.v_rK: Tensor | None = None

    def fit(self, matrix_DK: Tensor, fit_number: int) -> None:
        """Refit to `matrix_DK`; the n-th fit always draws the same test vectors; torch's random state is left alone."""
        if not self.rank:
            return
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(mix(fit_number, self.rank))
            oversampled = min(self.rank + 8, *matrix_DK.shape)
            u_Dq, s_q, v_Kq = torch.svd_lowrank(matrix_DK.cpu(), q=oversampled, niter=2)
        self.u_Dr = (u_Dq * s_q)[:, : self.rank].to(matrix_DK.device)
        self.v_rK = v_Kq[:, : self.rank].T.contiguous().to(matrix_DK.device)

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
