"""Measuring an OPU: noise, gain, mode grid, linearity, repeatability, pairing, and the matrix where it is asked for.

Shape letters: `N` patterns · `D` inputs · `M` optical modes · `P Q` camera rows, columns.
"""

import time
from typing import Literal

import torch
from torch import Tensor

from odfa import arguments, fourier
from odfa.demodulate import AbstractDemodulator, Anchor, OffAxis, PhaseSteps
from odfa.errors import ConfigError, OpuError
from odfa.flow import Frames
from odfa.keys import torch_generator
from odfa.opu import AbstractOpu, Drift, Reference, Sensor, Twin
from odfa.opu.calibration import Calibration
from odfa.project.guard import Guard, overlap, witnesses
from odfa.project.path import LightPath

_REPEATS = 16
_CODES_AT_A_TIME = 256


def demodulator_for(opu: AbstractOpu) -> AbstractDemodulator:
    """The demodulator that an OPU's arms allow: phase steps, else off-axis, else an anchor.

    Raises:
        ConfigError: no OPU. OpuError: it does not state its abilities sensibly.
    """
    arguments.kind("opu", opu, AbstractOpu)
    opu.check_stated()
    return PhaseSteps() if "stepped" in opu.arms else OffAxis() if "tilted" in opu.arms else Anchor()


def ternary(code_ND: Tensor) -> Frames:
    """Patterns of rows that are -1, 0 or +1 already."""
    gain_NF = torch.tensor([1.0, -1.0]).expand(len(code_ND), 2).contiguous()
    return Frames(bits_NFD=torch.stack([code_ND > 0, code_ND < 0], dim=1), gain_NF=gain_NF, encoder="calibration")


class Probe(LightPath):
    """A light path to be measured; all measurements read the same region of the camera."""

    def __init__(self, opu: AbstractOpu, demodulator: AbstractDemodulator, num_inputs: int, num_modes: int) -> None:
        arguments.kind("opu", opu, AbstractOpu)
        arguments.kind("demodulator", demodulator, AbstractDemodulator)
        for name, count in (("num_inputs", num_inputs), ("num_modes", num_modes)):
            arguments.whole(name, count, 1)
        opu.check_stated()  # before its camera is divided
        super().__init__(opu, demodulator, num_inputs, num_modes)

    def counts(self, bits_ND: Tensor, roi: tuple[int, int] | None = None) -> Tensor:
        """Raw counts (N, P, Q) of single patterns, the arm as the demodulator wants it, no phase steps; `roi` = (rows,
        columns) other than the demodulator's."""
        frames = Frames(
            bits_NFD=bits_ND[:, None], gain_NF=torch.ones(len(bits_ND), 1), encoder="raw", arm=self.demodulator.arm
        )
        return self.opu.run(frames, roi=roi or self.roi).counts_NFPQ[:, 0]


def calibrate(
    opu: AbstractOpu,
    *,
    num_inputs: int,
    num_modes: int,
    demodulator: AbstractDemodulator | None = None,
    matrix: Literal["hadamard", "one_hot"] | None = None,
) -> Calibration:
    """Measure `opu` for errors of `num_inputs` entries and `num_modes` modes.

    Args:
        demodulator: by default the first of phase steps, off-axis and anchor that the OPU can do.
        matrix: how to measure the transmission matrix: "hadamard" shows D patterns of +-1 at once lit half each and
            averages the noise over all of them, "one_hot" one input at a time; None: not at all.

    Raises:
        ConfigError: an unknown way to measure the matrix, no OPU, or no positive numbers.
        OpuError: what the OPU raises; Incompatible before the first frame.
    """
    if matrix not in ("hadamard", "one_hot", None):
        raise ConfigError(f"matrix must be hadamard, one_hot or None, got {matrix!r}")
    probe = Probe(opu, demodulator or demodulator_for(opu), num_inputs, num_modes)
    dark, noise = noise_floor(probe)
    # the witnesses that a guard will show later: gain and repeatability come from the fields that it compares with
    patterns = witnesses(num_inputs, Guard.num_witnesses)
    first_WM, second_WM = probe.field(patterns), probe.field(patterns)
    lit = float(patterns.bits_NFD.sum(dim=(1, 2)).float().mean())
    carrier_cpp, pupil_cpp = mode_grid(probe) if probe.demodulator.arm == "tilted" else (None, None)
    inputs = probe.demodulator.inputs(num_inputs)
    return Calibration(
        opu_id=opu.opu_id,
        demodulator=probe.demodulator.name,
        num_inputs=num_inputs,
        roi=probe.roi,
        created_s=time.time(),
        dark_counts=dark,
        noise_counts=noise,
        gain=float(first_WM.abs().square().mean().sqrt()) / (lit * probe.demodulator.quadratures / 2) ** 0.5,
        linearity_error=linearity_error(probe),
        repeatability=abs(overlap(first_WM, second_WM)),
        paired=paired(probe),
        counts_per_intensity=opu.counts_per_intensity(inputs, probe.demodulator.arm),
        reference_amplitude=opu.reference_amplitude(inputs),
        full_scale=opu.full_scale,
        exposure_s=opu.exposure_s,
        carrier_cpp=carrier_cpp,
        pupil_cpp=pupil_cpp,
        witness_WM=first_WM.contiguous(),
        matrix_DM=None if matrix is None else measure_matrix(probe, matrix),
    )


def noise_floor(probe: Probe) -> tuple[float, float]:
    """Mean count with dark mirrors, and the standard deviation of a pixel between equal frames, half of them lit."""
    # half of the mirrors lit, as in use: shot noise grows with the light, dark frames have too little
    inputs = probe.demodulator.inputs(probe.num_inputs)
    dark_ND = torch.zeros((2, inputs), dtype=torch.bool)
    half_ND = (torch.rand((1, inputs), generator=torch_generator(inputs)) < 0.5).expand(_REPEATS, -1)
    counts_NPQ = probe.counts(torch.cat([dark_ND, half_ND])).double()
    return float(counts_NPQ[:2].mean()), float(counts_NPQ[2:].var(0).mean().sqrt())


def linearity_error(probe: Probe) -> float:
    """Relative error of A(x + y) against A x + A y, x and y on different inputs; includes their noise."""
    if probe.num_inputs < 2:
        return 0.0
    generator = torch_generator(probe.num_inputs, 1)
    level_ND = torch.rand((8, probe.num_inputs), generator=generator)
    level_ND[:, 0], level_ND[:, 1] = 0.0, 0.3  # neither is empty, however few the inputs
    sign_ND = torch.randint(2, level_ND.shape, generator=generator) * 2 - 1
    x_ND, y_ND = (level_ND < 0.25) * sign_ND, ((level_ND >= 0.25) & (level_ND < 0.5)) * sign_ND
    parts_NM = probe.field(ternary(torch.cat([x_ND, y_ND, x_ND + y_ND])))
    x_NM, y_NM, both_NM = parts_NM.chunk(3)
    return float((both_NM - x_NM - y_NM).norm() / both_NM.norm().clamp_min(1e-30))


def paired(probe: Probe) -> bool:
    """True if frames shown as 0, 0, 1, 1, … come back so: each is nearer to its own kind than to the other."""
    # The first frames break the period of four: a camera that lags by a whole period would otherwise look in step.
    # Medians, so that a few frames out of step do not spoil what the others are compared with.
    inputs = probe.demodulator.inputs(probe.num_inputs)
    shown_N = torch.tensor([1, 0, 1, 1, 0, *[0, 0, 1, 1] * 4], dtype=torch.bool)
    counts_NPQ = probe.counts(shown_N[:, None].expand(-1, inputs)).double()
    dark_PQ, lit_PQ = counts_NPQ[~shown_N].median(0).values, counts_NPQ[shown_N].median(0).values
    nearer_lit = (counts_NPQ - lit_PQ).square().mean((1, 2)) < (counts_NPQ - dark_PQ).square().mean((1, 2))
    return bool((nearer_lit == shown_N).all())


def mode_grid(probe: Probe) -> tuple[tuple[float, float], float]:
    """Carrier and pupil radius, cycles per pixel, found in the spectra of holograms less that of the reference alone.

    The interference is the brightest patch outside the zero order; the carrier is the centre of its power, the radius
    follows from its second moment, which for an evenly filled disc is b^2 / 2.

    Raises:
        OpuError: no interference stands out.
    """
    inputs, generator = probe.num_inputs, torch_generator(probe.num_inputs, 2)
    bits_ND = torch.cat(
        [torch.zeros((1, inputs), dtype=torch.bool), torch.rand((32, inputs), generator=generator) < 0.3]
    )
    counts_NPQ = probe.counts(bits_ND).double()
    # differences of holograms: the light of the reference alone is the same in all of them and cancels
    spectrum_PQ = fourier.fft2((counts_NPQ[1:] - counts_NPQ[1:].mean(0)).to(torch.complex128)).abs().square().mean(0)
    frequency_P, frequency_Q = (torch.fft.fftfreq(size, dtype=torch.float64) for size in spectrum_PQ.shape)
    floor = float(spectrum_PQ.median())
    above_PQ = (spectrum_PQ - 4 * floor).clamp_min(0.0)
    row_PQ, col_PQ = torch.meshgrid(frequency_P, frequency_Q, indexing="ij")
    half_PQ = (row_PQ < 0) | ((row_PQ == 0) & (col_PQ < 0))  # of the two mirrored patches of real counts
    stated = probe.opu.view
    start = stated.carrier_cpp or (0.25, 0.25)
    if start[0] < 0 or (start[0] == 0 and start[1] < 0):
        half_PQ = ~half_PQ
    radius = stated.pupil_cpp or 0.16
    near_PQ = ((row_PQ + start[0]).square() + (col_PQ + start[1]).square()).sqrt() < 1.5 * radius
    power_PQ = above_PQ * half_PQ * near_PQ
    total = float(power_PQ.sum())
    if total <= 0 or float(power_PQ.max()) < 10 * floor:
        raise OpuError(
            f"{probe.opu.opu_id}: no interference fringes near {start} cycles per pixel; check that reference "
            "and signal overlap on the camera, and the angle between them"
        )
    row, col = float((power_PQ * row_PQ).sum()) / total, float((power_PQ * col_PQ).sum()) / total
    moment = float((power_PQ * ((row_PQ - row).square() + (col_PQ - col).square())).sum()) / total
    return (-row, -col), (2 * moment) ** 0.5


def measure_matrix(probe: Probe, patterns: Literal["hadamard", "one_hot"]) -> Tensor:
    """Transmission matrix (D, M) complex64 (float32 for a real demodulator).

    Hadamard: with H of +-1 and order J >= D, A = H^T (H A) / J; every entry averages J fields of D lit inputs.
    """
    width = probe.num_inputs
    code_JD = torch.eye(width) if patterns == "one_hot" else hadamard(1 << (width - 1).bit_length())[:, :width]
    parts = [probe.field(ternary(chunk_ND)) for chunk_ND in torch.split(code_JD, _CODES_AT_A_TIME)]
    field_JM = torch.cat(parts)
    if patterns == "one_hot":
        return field_JM.contiguous()
    return ((code_JD.T.to(field_JM.dtype) @ field_JM) / len(code_JD)).contiguous()


def hadamard(order: int) -> Tensor:
    """Sylvester's matrix of +-1, order a power of two: H H^T = order * 1."""
    matrix_JJ = torch.ones((1, 1))
    while len(matrix_JJ) < order:
        matrix_JJ = torch.cat([torch.cat([matrix_JJ, matrix_JJ], 1), torch.cat([matrix_JJ, -matrix_JJ], 1)])
    return matrix_JJ


def twin_from(calibration: Calibration, *, seed: int = 0, drift: Drift | None = None) -> Twin:
    """A twin of the OPU that was calibrated: its matrix if measured (else the same statistics), noise and exposure.

    The noise that was measured between frames is put in as read noise, shot noise included; the full well is taken as
    10,000 electrons, which only sets the units.
    """
    # A calibration holds how bright the reference is, not at which density of lit mirrors the exposure was set: 0.3 is
    # assumed, and ratio and exposure are chosen together so that a unit of intensity gives as many counts as measured.
    full_well_e = 10_000.0
    bits = calibration.full_scale.bit_length()
    noise_e = calibration.noise_counts * full_well_e / calibration.full_scale
    amplitude, inputs = calibration.reference_amplitude, calibration.num_inputs
    density = 0.3
    ratio = min(10_000.0, max(0.01, amplitude**2 / (density * inputs)))
    fill = calibration.counts_per_intensity * (1 + ratio) * density * inputs / calibration.full_scale
    matrix_DM = calibration.matrix_DM
    if matrix_DM is not None and not matrix_DM.is_complex():
        raise ConfigError(
            "the calibration holds one quadrature of the matrix only; calibrate by phase steps or off-axis"
        )
    geometry = {} if calibration.carrier_cpp is None else {
        "carrier_cpp": calibration.carrier_cpp, "pupil_cpp": calibration.pupil_cpp or 0.141,
    }  # fmt: skip
    return Twin(
        seed,
        sensor=Sensor(
            bits=bits if bits <= 16 else None,
            full_well_e=full_well_e,
            shot_noise=False,
            read_noise_e=noise_e if noise_e >= 0.01 else None,
            exposure_s=calibration.exposure_s,
            exposure_fill=min(1.0, fill),
        ),
        reference=Reference(ratio=ratio, nominal_density=density, **geometry),  # type: ignore[arg-type]
        matrix=matrix_DM,
        drift=drift,
        name=f"of calibration {calibration.id}",
    )
