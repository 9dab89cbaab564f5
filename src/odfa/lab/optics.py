"""Pictures of an OPU: what its camera sees, and how that compares with the laws of thick scattering media.

Shape letters: `P Q` camera rows, columns · `D` inputs · `M` optical modes.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from odfa import fourier
from odfa.flow import Arm, Frames, View
from odfa.keys import torch_generator
from odfa.lab.canvas import new_figure, open_frame, save_figure
from odfa.lab.destination import check_folder
from odfa.opu import AbstractOpu
from odfa.project.calibrating import Probe, demodulator_for, measure_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 192
"""Camera pixels along each side of the pictures."""
_INPUTS = 256
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#777777"


def draw_all(opu: AbstractOpu, folder: Path | str) -> list[Path]:
    """Every picture that the OPU's reference arm allows, as PNG files in `folder`.

    Raises:
        MissingExtra: matplotlib is absent. ConfigError, RunFolderError: the folder cannot be written.
        OpuError: the OPU fails.
    """
    pictures: dict[str, Callable[[AbstractOpu, Figure], None]] = {}
    # each picture needs one state of the reference arm; the matrix needs a reference, which makes the field known
    if "blocked" in opu.arms:
        pictures |= {"speckle": _speckle, "intensity": _histogram}
    if "tilted" in opu.arms:
        pictures |= {"hologram": _hologram, "fourier": _fourier}
    if opu.arms != {"blocked"}:
        pictures["singular-values"] = _singular_values
    path, written = check_folder(Path(folder), "out"), []
    for name, draw in pictures.items():
        figure = new_figure(5.6, 4.6)
        draw(opu, figure)
        written.append(path / f"{name}.png")
        save_figure(figure, written[-1], dpi=150)
    return written


def snapshot(opu: AbstractOpu, arm: Arm, num_patterns: int = 1) -> Tensor:
    """Counts (N, P, Q) of random patterns, a third of the inputs lit (half without a reference), on a square region."""
    inputs = min(_INPUTS, opu.num_mirrors)
    density = 0.5 if arm == "blocked" else 0.3
    bits_ND = torch.rand((num_patterns, inputs), generator=torch_generator(inputs)) < density
    frames = Frames(bits_NFD=bits_ND[:, None], gain_NF=torch.ones(num_patterns, 1), encoder="picture", arm=arm)
    return opu.run(frames, roi=_region(opu)).counts_NFPQ[:, 0]


def _region(opu: AbstractOpu) -> tuple[int, int]:
    return min(_SIDE, opu.shape_cam[0]), min(_SIDE, opu.shape_cam[1])


def _speckle(opu: AbstractOpu, figure: "Figure") -> None:
    _image(figure, snapshot(opu, "blocked")[0], f"{opu.opu_id}\nspeckle: mirrors alone, reference shut", "counts")


def _hologram(opu: AbstractOpu, figure: "Figure") -> None:
    counts_PQ = snapshot(opu, "tilted")[0]
    _image(figure, counts_PQ[:64, :64], f"{opu.opu_id}\nhologram: speckle and tilted reference (detail)", "counts")


def _image(figure: "Figure", counts_PQ: Tensor, title: str, label: str) -> None:
    axes = figure.subplots()
    shown = axes.imshow(counts_PQ.numpy(), cmap="magma", interpolation="nearest")
    axes.set(xlabel="camera column, pixels", ylabel="camera row, pixels")
    axes.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axes, label=label, shrink=0.85)


def _fourier(opu: AbstractOpu, figure: "Figure") -> None:
    """Log spectrum of a hologram; the circle is the window that off-axis holography reads."""
    from matplotlib.patches import Circle

    counts_NPQ = snapshot(opu, "tilted", 16).to(torch.complex128)
    power_PQ = torch.fft.fftshift(fourier.fft2(counts_NPQ).abs().square().mean(0))
    axes = figure.subplots()
    floor = float(power_PQ.median())  # most frequencies hold noise alone
    shown = axes.imshow(
        (10 * (power_PQ / floor).clamp_min(0.3).log10()).numpy(),
        cmap="viridis",
        extent=(-0.5, 0.5, 0.5, -0.5),
        vmax=40,
        interpolation="nearest",
    )
    row, col = opu.carrier_cpp or (0.0, 0.0)
    radius = opu.pupil_cpp or 0.0
    axes.add_patch(Circle((-col, -row), radius, fill=False, color="white", linewidth=1.5))
    axes.add_patch(Circle((0, 0), 2 * radius, fill=False, color="white", linewidth=1, linestyle=":"))
    axes.annotate("window", (-col, -row), color="black", ha="center", va="center", fontsize=8)
    axes.annotate("|E|², twice the pupil", (0, -2 * radius - 0.015), color="white", ha="center", fontsize=8)
    axes.set(xlabel="column frequency, cycles per pixel", ylabel="row frequency, cycles per pixel")
    axes.set_title(f"{opu.opu_id}\nFourier plane of holograms, mean power of 16", fontsize=9)
    figure.colorbar(shown, ax=axes, label="power over the noise floor, dB", shrink=0.85)


def _histogram(opu: AbstractOpu, figure: "Figure") -> None:
    """Speckle intensity over its mean, against exp(-I)."""
    counts_NPQ = snapshot(opu, "blocked", 8).double().numpy()
    relative = counts_NPQ / counts_NPQ.mean()
    top = min(8.0, opu.full_scale / counts_NPQ.mean())
    # bins are whole numbers of counts wide and begin between two counts, or some would hold more counts than others
    step = max(1, round(opu.full_scale / top / 12)) / counts_NPQ.mean()
    edges = (np.arange(0, math.ceil(top / step) + 1) - 0.5 / max(1, round(step * counts_NPQ.mean()))) * step
    axes = figure.subplots()
    axes.hist(relative.ravel(), edges, density=True, color=_BLUE, alpha=0.5, label="camera")
    x = np.linspace(0, top, 200)
    axes.plot(x, np.exp(-x), color=_ORANGE, linewidth=2, label="exp(−I): fully developed speckle")
    if top < 8.0:
        axes.axvline(top, color=_GREY, linestyle=":", label="full scale")
    axes.set(yscale="log", xlabel="intensity over its mean", ylabel="probability density", ylim=(1e-4, 2))
    contrast = counts_NPQ.std() / counts_NPQ.mean()
    axes.set_title(f"{opu.opu_id}\nspeckle contrast {contrast:.3f} (law: 1, less what clips)", fontsize=9)
    axes.legend(frameon=False)
    open_frame(axes)


def _singular_values(opu: AbstractOpu, figure: "Figure") -> None:
    """Spectrum of the measured matrix against Marchenko and Pastur's law."""
    inputs = min(_INPUTS, opu.num_mirrors)
    probe = Probe(opu, demodulator_for(opu), inputs, min(2 * inputs, View(shape=opu.shape_cam).num_pixels))
    matrix_DM = measure_matrix(probe, "hadamard")
    singular = torch.linalg.svdvals(matrix_DM).numpy()
    # the law is in units of the rms: the gain of the camera has no part in it
    singular = singular / np.sqrt(np.mean(singular**2))
    ratio = matrix_DM.shape[0] / matrix_DM.shape[1]
    x, density = marchenko_pastur(ratio)
    axes = figure.subplots()
    axes.hist(singular, 32, density=True, color=_BLUE, alpha=0.5, label="measured, Hadamard patterns")
    axes.plot(x, density, color=_ORANGE, linewidth=2, label="Marchenko–Pastur")
    axes.set(xlabel="singular value over its rms", ylabel="probability density")
    axes.set_title(f"{opu.opu_id}\n{matrix_DM.shape[0]} inputs, {matrix_DM.shape[1]} modes", fontsize=9)
    axes.legend(frameon=False)
    open_frame(axes)


def marchenko_pastur(ratio: float, points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Density of the singular values s of a D x M matrix with iid entries, in units of their rms; ratio = D / M <= 1.

    p(s) = sqrt((b^2 - s^2)(s^2 - a^2)) / (pi ratio s),   a, b = 1 -+ sqrt(ratio)
    """
    low, high = 1 - math.sqrt(ratio), 1 + math.sqrt(ratio)
    s = np.linspace(low, high, points)
    inside = np.clip((high**2 - s**2) * (s**2 - low**2), 0, None)
    return s, np.sqrt(inside) / (np.pi * ratio * np.maximum(s, 1e-12))
