"""Ternary quantisers as pure functions: e_ND -> (bits, gains) with sum_F gain_NF bits_NFD standing for e_ND.

Shape letters: `N` samples · `D` error width · `F` patterns per sample, plus and minus in turn · `R` repeats, F = 2 R.
"""

import numpy as np
import torch
from torch import Tensor

from odfa.draws import Draws
from odfa.encode.accelerated import draw_entries_on_accelerator
from odfa.encode.base import row_blocks
from odfa.structured import triton_runs_on


def stochastic(e_ND: Tensor, *, repeats: int, draws: Draws) -> tuple[Tensor, Tensor]:
    """Keep entry i with probability |e_i| / max|e|, at the scale max|e|: unbiased, E[values] = e.

    Args:
        e_ND: error rows.
        repeats: R independent draws per row, averaged.
        draws: source of the draws, a row for each row.

    Returns:
        bits_NFD (bool) and gain_NF = +-max|e| / R.
    """
    # one uniform number decides both patterns: plus where u peak < e, minus where -u peak > e, never both
    num_samples, num_inputs = e_ND.shape
    bits_NFD = e_ND.new_empty((num_samples, 2 * repeats, num_inputs), dtype=torch.bool)
    peak_N1 = _peak(e_ND)
    for rows in row_blocks(e_ND):
        e_nD, peak_n1, bits_nFD = e_ND[rows], peak_N1[rows], bits_NFD[rows]
        level_nRD = draws.uniform(
            len(e_nD), repeats * num_inputs, first_row=rows.start, device=e_ND.device, dtype=e_ND.dtype
        ).view(-1, repeats, num_inputs)
        level_nRD.mul_(peak_n1[:, None])
        torch.lt(level_nRD, e_nD[:, None], out=bits_nFD[:, 0::2])
        torch.gt(level_nRD.neg_(), e_nD[:, None], out=bits_nFD[:, 1::2])
    return bits_NFD, _signed(peak_N1 / repeats, repeats)


def best_cosine(e_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the k largest magnitudes of each row, k chosen to maximise the cosine between e and its ternary code.

    With m_1 >= m_2 >= … the sorted magnitudes, cos_k = (m_1 + … + m_k) / (sqrt(k) |e|); the scale is the least-squares
    one, the mean kept magnitude. For Gaussian rows cos -> 0.900 at threshold 0.612 sigma.

    Returns:
        bits_NFD (bool, F = 2) and gain_NF.
    """
    # cos_k is largest where the mean of the k largest times sqrt(k) is: one sort and one cumulative sum, no search
    count_D = torch.arange(1, e_ND.shape[1] + 1, device=e_ND.device, dtype=e_ND.dtype)
    smallest_kept_N1 = e_ND.new_empty((len(e_ND), 1))
    for rows in row_blocks(e_ND):
        falling_nD = _sorted(-e_ND[rows].abs())  # largest magnitude first, with a minus sign
        best_n1 = (falling_nD.cumsum(1) / count_D.sqrt()).argmin(1, keepdim=True)
        smallest_kept_N1[rows] = -falling_nD.gather(1, best_n1)
    return _threshold(e_ND, smallest_kept_N1)


def relative_max(e_ND: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """Keep |e_i| > threshold * max|e|; the scale is the least-squares one, the mean kept magnitude.

    Returns:
        bits_NFD (bool, F = 2) and gain_NF.
    """
    # `_threshold` keeps what is at least the cut; the next larger number turns that into "above the cut"
    cut_N1 = threshold * _peak(e_ND)
    return _threshold(e_ND, torch.nextafter(cut_N1, torch.full_like(cut_N1, torch.inf)))


def sampled(e_ND: Tensor, *, repeats: int, draws: Draws) -> tuple[Tensor, Tensor]:
    """The entries of `drawn_entries`, each as a pattern of its own: at most two non-zeros per repeat.

    For a softmax cross-entropy error this is "+1 at a class drawn from the model, -1 at the target".

    Returns:
        bits_NFD (bool) and gain_NF = (+|e+|_1, -|e-|_1) / R in turn.
    """
    bits_NFD = torch.zeros((len(e_ND), 2 * repeats, e_ND.shape[1]), dtype=torch.bool, device=e_ND.device)
    index_NF, gain_NF = drawn_entries(e_ND, repeats=repeats, draws=draws)
    for rows in row_blocks(e_ND):
        bits_NFD[rows].scatter_(2, index_NF[rows].unsqueeze(2), (gain_NF[rows] != 0).unsqueeze(2))
    return bits_NFD, gain_NF


def drawn_entries(e_ND: Tensor, *, repeats: int, draws: Draws) -> tuple[Tensor, Tensor]:
    """Draw one index from e+ / |e+|_1 and one from e- / |e-|_1 per repeat, by inverse cumulative distribution.

    The R draws of a sign are spread evenly, u_r = (r + u) / R with one uniform u: an entry of share s is drawn floor or
    ceil of R s times, which leaves the mean and takes most of the variance (systematic sampling).

    Unbiased: E[sum_R (|e+|_1 1_i - |e-|_1 1_j) / R] = e+ - e- = e.

    Returns:
        index_NF (int64), F = 2 R, and gain_NF = (+|e+|_1, -|e-|_1) / R in turn.
    """
    num_samples = len(e_ND)
    index_NF = torch.zeros((num_samples, 2 * repeats), dtype=torch.int64, device=e_ND.device)
    gain_NF = e_ND.new_empty((num_samples, 2 * repeats))
    uniform_N2 = draws.uniform(num_samples, 2, device=e_ND.device, dtype=e_ND.dtype)
    if triton_runs_on(e_ND.device) and e_ND.dtype == torch.float32:
        draw_entries_on_accelerator(e_ND.detach(), uniform_N2, index_NF, gain_NF)
        return index_NF, gain_NF
    spread_F = torch.arange(repeats, dtype=e_ND.dtype, device=e_ND.device).repeat_interleave(2)
    uniform_NF = (spread_F + uniform_N2.repeat(1, repeats)).div_(repeats)
    for rows in row_blocks(e_ND):
        for offset, sign in ((0, 1.0), (1, -1.0)):
            cumulative_nD = (sign * e_ND[rows]).clamp_(min=0).cumsum(1)
            total_n1 = cumulative_nD[:, -1:].contiguous()
            # right=True skips entries of probability zero; rounding may run past the last entry that has any
            index_nR = torch.searchsorted(cumulative_nD, uniform_NF[rows, offset::2] * total_n1, right=True)
            index_NF[rows, offset::2] = torch.minimum(index_nR, torch.searchsorted(cumulative_nD, total_n1))
            gain_NF[rows, offset::2] = sign * total_n1 / repeats
    return index_NF, gain_NF


def _peak(e_ND: Tensor) -> Tensor:
    smallest_N1, largest_N1 = e_ND.aminmax(dim=1, keepdim=True)
    return torch.maximum(largest_N1, -smallest_N1)


def _sorted(value_ND: Tensor) -> Tensor:
    if value_ND.device.type == "cpu":  # NumPy's vectorised sort is five times faster than torch's on rows of 8192
        return torch.from_numpy(np.sort(value_ND.numpy(), axis=1))
    return value_ND.sort(dim=1).values


def _threshold(e_ND: Tensor, smallest_kept_N1: Tensor) -> tuple[Tensor, Tensor]:
    bits_NFD = e_ND.new_empty((len(e_ND), 2, e_ND.shape[1]), dtype=torch.bool)
    scale_N1 = e_ND.new_empty((len(e_ND), 1))
    # a row of zeros has the threshold 0 and must stay dark
    floor_N1 = smallest_kept_N1.clamp_min(torch.finfo(e_ND.dtype).tiny)
    for rows in row_blocks(e_ND):
        e_nD, floor_n1 = e_ND[rows], floor_N1[rows]
        plus_nD, minus_nD = e_nD >= floor_n1, e_nD <= -floor_n1
        bits_NFD[rows, 0], bits_NFD[rows, 1] = plus_nD, minus_nD
        kept_nD = plus_nD | minus_nD
        scale_N1[rows] = (e_nD.abs() * kept_nD).sum(1, keepdim=True) / kept_nD.sum(1, keepdim=True).clamp_min(1)
    return bits_NFD, _signed(scale_N1, 1)


def _signed(scale_N1: Tensor, repeats: int) -> Tensor:
    return scale_N1 * scale_N1.new_tensor([1.0, -1.0]).repeat(repeats)
