"""Are counts proportional to the light, in every frame and at every pixel? Raw frames tell, whatever the demodulator.

Three patterns x, y, z without a common mirror are shown alone, in pairs, all together, and none of them. With
J_x = I(x) - I(0), in units where the reference gives R counts and a pattern n on average,

    K = I(x + y) - I(x) - I(y) + I(0) = 2 Re(s_x s_y*),     E[K J_x J_y] = 2 R n^2,     E[J_x^2] = 2 n^2 + 2 R n

for any R and speckle of circular Gaussian fields; and intensity is quadratic in what is lit, so third differences
vanish at every pixel. Where counts are light to the power g, E[K J_x J_y] is 2 - 1/g times that beside a strong
reference, and without one the mean of J grows as n^g. Everything is shown twice and products are taken between the two,
so that the camera's noise drops out.

Shape letters: `T` triples of patterns · `D` inputs · `P Q` camera rows, columns.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odfa.keys import torch_generator
from odfa.project.calibrating import Probe

_TRIPLES = 16
_MORE_TRIPLES, _FEW_PIXELS = 32, 1024
_REGION = 64
"""Rows and columns of pixels looked at, where the camera has so many."""
_PAIRS = ((1, 2, 4), (1, 4, 2), (2, 4, 1))
"""Two patterns and the third as bits of the index of what is lit: x 1, y 2, z 4."""
_DEAF, _DEAFER, _FEW_INPUTS = 0.05, 0.002, 12
"""A pixel whose counts vary with the mirrors by less than this share of the median variance does not follow the light;
with few inputs some pixels of a sound camera get as little."""
_ROUNDING = 8 / 12
"""Variance of a third difference of eight rounded counts."""


@dataclass(frozen=True, kw_only=True)
class Photometry:
    """What raw counts show of a camera; NaN where there are too few inputs to measure it."""

    gamma: float
    """Counts are light to this power."""
    following: float
    """Rise of a frame's mean with the lit mirrors over what its speckle foretells: 1 where both are light, more where
    pixels average the speckle, 0 where an automatic gain undoes it (or where a modulator moves all light elsewhere)."""
    unsteady: float
    """Third difference over first difference, rms: 0 where every frame has the same scale."""
    deaf: float
    """Share of pixels that do not follow the light."""
    where: list[tuple[int, int]]
    """Row and column of the first of them."""


def photometry_of(probe: Probe) -> Photometry:
    """Measure with 256 frames, or 512 where the camera has few pixels."""
    if probe.demodulator.inputs(probe.num_inputs) < 3:
        return Photometry(gamma=math.nan, following=math.nan, unsteady=math.nan, deaf=0.0, where=[])
    first, second = _shown(probe)
    mean_8 = (first + second).mean((1, 2, 3)) / 2
    dark, one, three = (float(mean_8[kinds].mean()) for kinds in ([0], [1, 2, 4], [7]))
    jumps = [(shot[[1, 2, 4]] - shot[0]) for shot in (first, second)]
    spread = float(((jumps[0] - (one - dark)) * (jumps[1] - (one - dark))).mean())
    # var J = E[J^2] - n^2 = (R + n)^2 - R^2, solved for n: the rise of the mean that the speckle's contrast foretells
    foretold = math.sqrt(dark**2 + max(0.0, spread)) - dark
    sign_8 = torch.tensor([-1, 1, 1, -1, 1, -1, -1, 1], dtype=torch.float64)
    thirds = [torch.einsum("k,ktpq->tpq", sign_8, shot) for shot in (first, second)]
    beyond = float((thirds[0] * thirds[1]).mean()) - _ROUNDING
    deaf_PQ = _deaf(probe, first, second)
    return Photometry(
        gamma=_gamma(probe, first, second, (dark, one, three)),
        following=(three - one) / 2 / foretold if foretold > 0 else 0.0,
        unsteady=math.sqrt(max(0.0, beyond) / max(1e-30, float((jumps[0] * jumps[1]).mean()))),
        deaf=float(deaf_PQ.double().mean()),
        where=[(int(row), int(col)) for row, col in deaf_PQ.nonzero()[:3]],
    )


def _shown(probe: Probe) -> tuple[Tensor, Tensor]:
    """Counts with x, y, z lit as the bits of the first index say, twice: two of (8, T, P, Q), neighbours in time."""
    inputs, cam = probe.demodulator.inputs(probe.num_inputs), probe.opu.shape_cam
    roi = min(_REGION, cam[0]), min(_REGION, cam[1])
    triples = _TRIPLES if roi[0] * roi[1] >= _FEW_PIXELS else _MORE_TRIPLES
    generator = torch_generator(probe.num_inputs, 3)
    x_TD, y_TD, z_TD = (torch.zeros((triples, inputs), dtype=torch.bool) for _ in range(3))
    ends = [0, inputs // 3, 2 * inputs // 3, inputs]  # each on its own mirrors: neighbours may send similar fields
    for part_TD, start, end in zip((x_TD, y_TD, z_TD), ends, ends[1:], strict=False):
        order_Td = torch.rand((triples, end - start), generator=generator).argsort(1)
        part_TD[:, start:end] = order_Td < max(1, (end - start) // 4)
    lit = [[part_TD & bool(k & bit) for bit, part_TD in ((1, x_TD), (2, y_TD), (4, z_TD))] for k in range(8)]
    bits_T8D = torch.stack([x | y | z for x, y, z in lit], 1)
    bits_FD = bits_T8D[:, None].expand(-1, 2, -1, -1).reshape(-1, inputs)
    counts_FPQ = probe.counts(bits_FD, roi).double()
    first, second = counts_FPQ.view(triples, 2, 8, *roi).permute(1, 2, 0, 3, 4)
    return first, second


def _gamma(probe: Probe, first: Tensor, second: Tensor, means: tuple[float, float, float]) -> float:
    # Beside a strong reference the mean of J is linear in the light whatever the exponent, which is therefore taken
    # from E[K J_x J_y]; that law needs the strong reference, and without one the growth of the mean is taken.
    dark, one, three = means
    if min(one, three) <= dark:
        return math.nan
    if probe.demodulator.arm == "blocked" or dark < one - dark:
        return math.log((three - dark) / (one - dark), 3)
    rise, crossed = (three - dark) / 3, 0.0
    for x, y, z in _PAIRS:
        bent = second[x | y] - second[x] - second[y] + second[0]
        bent = (bent + second[7] - second[x | z] - second[y | z] + second[z]) / 2
        crossed += float((bent * (first[x] - first[0]) * (first[y] - first[0])).mean()) / 3
    share = crossed / (2 * dark * rise**2)
    return 1 / (2 - share) if share < 2 else math.inf


def _deaf(probe: Probe, first: Tensor, second: Tensor) -> Tensor:
    centred = [(shot - shot.mean((0, 1))).flatten(0, 1) for shot in (first, second)]
    varying_PQ = (centred[0] * centred[1]).mean(0)
    share = _DEAF if probe.num_inputs >= _FEW_INPUTS else _DEAFER
    deaf_PQ = varying_PQ <= share * varying_PQ.median()
    if probe.demodulator.arm == "blocked":  # without a reference dark mirrors leave the camera dark
        deaf_PQ |= first[0].mean(0) > probe.opu.full_scale / 4
    return deaf_PQ
