"""The largest entries of each row of the error, multiplied exactly where the rest is approximated by low rank."""

from torch import Tensor
from torch.nn.functional import embedding_bag

from odfa.feedback.low_rank import LowRank


def of_largest(e_ND: Tensor, count: int, matrix_DK: Tensor, low_rank: LowRank) -> Tensor:
    """p_NK = sum over the `count` largest entries |e_i| of a row of e_i (M_i - U_i V), M = `matrix_DK`, U V its fit.

    Added to e U V it makes these entries exact. 2 count (K + r) operations a row, and `count` rows of M are read.
    """
    index_Nk = e_ND.abs().topk(count, dim=1).indices
    weight_Nk = e_ND.gather(1, index_Nk)

    def gathered(rows_DX: Tensor) -> Tensor:
        return embedding_bag(index_Nk, rows_DX.to(e_ND), per_sample_weights=weight_Nk, mode="sum")

    exact_NK = gathered(matrix_DK)
    if low_rank.u_Dr is None or low_rank.v_rK is None:
        return exact_NK
    return exact_NK - gathered(low_rank.u_Dr) @ low_rank.v_rK.to(e_ND)
