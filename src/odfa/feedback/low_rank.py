"""The electronic part of a rule: a low-rank approximation of the head's matrix, applied to the exact error."""

import torch
from torch import Tensor

from odfa.draws import Draws
from odfa.errors import NonFinite
from odfa.flow import wide
from odfa.saved import State, check_state

_STREAM = int.from_bytes(b"lowrank")
_OVERSAMPLING, _POWER_ITERATIONS = 8, 2


class LowRank:
    """q_NK = e_ND U_Dr V_rK, the best rank-r approximation of a matrix that changes slowly.

    Fitted by a randomised singular value decomposition with power iterations (Halko, Martinsson & Tropp, SIAM Review
    53 (2011), algorithms 4.4 and 5.1), whose test vectors are drawn by key.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.u_Dr: Tensor | None = None
        self.v_rK: Tensor | None = None

    def fit(self, matrix_DK: Tensor, fit_number: int) -> None:
        """Refit to `matrix_DK`; the n-th fit always draws the same test vectors.

        Raises:
            NonFinite: its entries or their products are not finite.
        """
        if not self.rank:
            return
        # a few more test vectors than the rank, and two power iterations with a QR between: the singular values of a
        # head fall off slowly, and without either the leading directions would be mixed with the next ones
        width = min(self.rank + _OVERSAMPLING, *matrix_DK.shape)
        draws = Draws(_STREAM, self.rank, fit_number)
        test_Kq = draws.normal(matrix_DK.shape[1], width, device=matrix_DK.device, dtype=matrix_DK.dtype)
        basis_Dq = torch.linalg.qr(matrix_DK @ test_Kq).Q
        for _ in range(_POWER_ITERATIONS):
            basis_Dq = torch.linalg.qr(matrix_DK @ torch.linalg.qr(matrix_DK.T @ basis_Dq).Q).Q
        try:
            u_qq, s_q, v_qK = torch.linalg.svd(basis_Dq.T @ matrix_DK, full_matrices=False)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise NonFinite(
                "the head has drifted so far that its correction overflows; lower the learning rate"
            ) from error
        self.u_Dr = ((basis_Dq @ u_qq) * s_q)[:, : self.rank].contiguous()
        self.v_rK = v_qK[: self.rank].contiguous()

    def __call__(self, e_ND: Tensor) -> Tensor | None:
        """Correction for rows `e_ND`, in float32 or better; None before the first fit."""
        if self.u_Dr is None or self.v_rK is None:
            return None
        h_Nr = wide(e_ND @ self.u_Dr.to(e_ND))
        return h_Nr @ self.v_rK.to(h_Nr)

    @property
    def product_DK(self) -> Tensor | None:
        """The approximation itself, or None before the first fit."""
        return None if self.u_Dr is None or self.v_rK is None else self.u_Dr @ self.v_rK

    def state_dict(self) -> State:
        """The two factors (absent before the first fit)."""
        return {} if self.u_Dr is None else {"u_Dr": self.u_Dr, "v_rK": self.v_rK}

    def load_state_dict(self, state: State, like_DK: Tensor) -> None:
        """Restore what `state_dict` returned for a matrix of this shape and type.

        Raises:
            CheckpointError: the factors are those of another matrix or rank.
        """
        num_rows, num_columns = like_DK.shape
        rank, meta_DK = min(self.rank, num_rows, num_columns), like_DK.to("meta")
        form = {"u_Dr": meta_DK.new_empty(num_rows, rank), "v_rK": meta_DK.new_empty(rank, num_columns)}
        check_state(state, form if state and rank else {}, "low_rank")
        self.u_Dr, self.v_rK = state.get("u_Dr"), state.get("v_rK")
