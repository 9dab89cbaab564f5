"""Entries of each row of the error, drawn in proportion to their size: unbiased for what low rank leaves out."""

from torch import Tensor
from torch.nn.functional import embedding_bag

from odfa.draws import Draws
from odfa.encode.quantise import drawn_entries
from odfa.feedback.low_rank import LowRank


def of_drawn(e_ND: Tensor, draws: int, matrix_DK: Tensor, low_rank: LowRank, numbers: Draws) -> Tensor:
    """p_NK = sum over drawn entries i of g_i (M_i - U_i V), M = `matrix_DK`, U V its fit; E[p] = e (M - U V).

    `draws` entries of each sign are drawn by `quantise.drawn_entries`. 4 draws (K + r) operations a row, and 2 draws
    rows of M are read.
    """
    # not the largest entries: what a well-calibrated model says, and its targets, cancel on the average, and an exact
    # product of some of them with an approximate one of the others leaves a signal that does not
    index_NF, gain_NF = drawn_entries(e_ND, repeats=draws, draws=numbers)

    def gathered(rows_DX: Tensor) -> Tensor:
        return embedding_bag(index_NF, rows_DX.to(e_ND), per_sample_weights=gain_NF, mode="sum")

    exact_NK = gathered(matrix_DK)
    if low_rank.u_Dr is None or low_rank.v_rK is None:
        return exact_NK
    return exact_NK - gathered(low_rank.u_Dr) @ low_rank.v_rK.to(e_ND)
