"""Holography without a reference arm: an anchor pattern on mirrors of its own takes the reference's place.

Shape letters: `N` samples · `F` patterns per sample · `D` inputs · `M` outputs · `G` pixels per output.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odfa.demodulate.base import AbstractDemodulator, DemodulatorSettings, check_frames, float_dtype, region
from odfa.errors import ConfigError
from odfa.flow import Arm, Capture, Field, Frames, View
from odfa.settings import require, require_counts

_DARK_SHARE = 1e-6
"""Share of single pixels darker than this share of the mean; G of them together are as rare at its G-th root."""


class Anchor(AbstractDemodulator):
    """Every pattern x is shown with and without an anchor a, and the anchor once alone: no interferometer to drift.

    Per pixel j, L_j = |A(x + a)|^2 - |A x|^2 - |A a|^2 = 2 Re(conj(A a) A x): the part of the field that is in phase
    with the anchor's. G pixels are combined in the ratio that is best against equal noise on each of them,

        field = sum_j L_j / (2 sqrt(sum_j |A a|_j^2))
              = sum_j |A a|_j Re(e^(-i arg (A a)_j) (A x)_j) / sqrt(sum_j |A a|_j^2)

    which for a Gaussian medium is exactly Gaussian, of the variance of one quadrature of a mode, and independent of the
    anchor's brightness: rows of the matrix stay iid. Its noise power is that of one pixel over the mean of G
    exponential intensities, so G / (G - 1) times that of an evenly bright anchor: infinite on average for one pixel,
    where the anchor's speckle has zeros, a third more for four. A global phase of the light cancels in every frame.
    That intensities alone give a linear real projection is due to arXiv 2305.12988; this combination is this package's.
    """

    arm: Arm = "blocked"
    quadratures = 1
    shared_frames = 1

    def __init__(self, *, pixels_per_mode: int = 4, share: float = 0.3) -> None:
        """Choose the anchor.

        Args:
            pixels_per_mode: G, camera pixels combined to one output.
            share: inputs that the anchor takes, relative to the error's width.

        Raises:
            ConfigError: fewer than one pixel, or a share outside (0, 10].
        """
        if isinstance(pixels_per_mode, bool) or not isinstance(pixels_per_mode, int) or pixels_per_mode < 1:
            raise ConfigError(f"pixels_per_mode must be a positive integer, got {pixels_per_mode!r}")
        if not 0 < share <= 10:
            raise ConfigError(f"share must be in (0, 10], inputs of the anchor per input of the error; got {share!r}")
        self._pixels, self._share = pixels_per_mode, share
        self.name = f"anchor(pixels={pixels_per_mode}, share={share:g})"

    def __repr__(self) -> str:
        return self.name

    def inputs(self, num_inputs: int) -> int:
        """The error's inputs and the anchor's."""
        return num_inputs + max(1, round(self._share * num_inputs))

    def expand(self, frames: Frames) -> Frames:
        """Each pattern with the anchor lit, gain +g, and dark, gain -g; the anchor alone shared by all samples."""
        bits_NFD = frames.bits_NFD
        num_samples, num_patterns, num_inputs = bits_NFD.shape
        total = self.inputs(num_inputs)
        wide_NFD = bits_NFD.new_zeros((num_samples, num_patterns, 2, total))
        wide_NFD[..., :num_inputs] = bits_NFD[:, :, None]
        wide_NFD[:, :, 0, num_inputs:] = True
        anchor_AD = bits_NFD.new_zeros((1, total))
        anchor_AD[:, num_inputs:] = True
        gain_NF = torch.stack([frames.gain_NF, -frames.gain_NF], dim=2).flatten(1)
        return replace(
            frames, bits_NFD=wide_NFD.flatten(1, 2), gain_NF=gain_NF, phase_S=(), arm=self.arm, shared_AD=anchor_AD
        )

    def exposures(self, num_patterns: int) -> int:
        """Two frames for each pattern, with and without the anchor."""
        return 2 * num_patterns

    def roi(self, num_modes: int, view: View) -> tuple[int, int]:
        """The region of G pixels for each output."""
        return region(self._pixels * num_modes, view)

    def demodulate(self, capture: Capture, frames: Frames) -> Field:
        """Real field of each sample and output, in the units where one lit input gives a mean square of 1/2.

        Raises:
            FrameMismatch: the capture does not hold one frame per pattern of `frames`, or the anchor's is missing.
        """
        # Gains first, then pixels, then the division: everything before the division is linear in the counts, so that
        # static light cancels exactly between patterns and each sample takes one product.
        check_frames(self.name, capture, frames)
        assert capture.shared_APQ is not None
        counts_NFJ, dtype = capture.counts_NFPQ.flatten(2), float_dtype(capture)
        per_intensity = capture.acquisition.counts_per_intensity
        gain_NF = frames.gain_NF.to(dtype)
        difference_NJ = (gain_NF[:, None] @ counts_NFJ.to(dtype))[:, 0]
        anchor_J = capture.shared_APQ[0].flatten().to(dtype)
        # plus and minus patterns cancel the anchor's own light; whatever is left over is taken out here
        surplus_N1 = gain_NF[:, 0::2].sum(1, keepdim=True)
        cross_NM = self._summed(difference_NJ - surplus_N1 * anchor_J) / per_intensity
        bright_M = self._summed(anchor_J[None])[0] / per_intensity
        # Dividing by the light of a group that is nearly dark would blow up its noise: its light is taken to be at
        # least half a count, or what one output in a hundred thousand falls below.
        faint = bright_M.mean().double() * _DARK_SHARE ** (1 / self._pixels)
        floor = faint.clamp_min(0.5 / per_intensity).to(dtype)
        return Field(field_NM=(cross_NM / (2 * bright_M.clamp_min(floor).sqrt())).float())

    def _summed(self, value_NJ: Tensor) -> Tensor:
        """Sum over each output's G pixels; pixels left over at the end of the region are not used."""
        whole = value_NJ.shape[1] // self._pixels * self._pixels
        return value_NJ[:, :whole].reshape(len(value_NJ), -1, self._pixels).sum(2)


@dataclass(frozen=True, kw_only=True)
class AnchorSettings(DemodulatorSettings, kind="anchor"):
    """An anchor pattern takes the place of a reference; one quadrature a mode."""

    pixels_per_mode: int = 4
    """Camera pixels combined to one output."""
    share: float = 0.3
    """Inputs that the anchor takes, relative to the error's width."""

    def __post_init__(self) -> None:
        require_counts(self, "pixels_per_mode")
        require(0 < self.share <= 10, "share", "a number in (0, 10]", self.share)

    def build(self) -> Anchor:
        """`Anchor(pixels_per_mode=..., share=...)` with these values."""
        return Anchor(pixels_per_mode=self.pixels_per_mode, share=self.share)
