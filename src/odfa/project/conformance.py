"""One conformance suite for twins and instruments: whether an OPU does what the contract of `AbstractOpu` promises.

Every check ends with a value, what was expected and, if it failed, a reason in one line; an OPU that breaks down
fails the check in which it does.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from odfa import arguments
from odfa.demodulate import AbstractDemodulator
from odfa.errors import OdfaError, OpuError, Saturated
from odfa.flow import Frames
from odfa.keys import torch_generator
from odfa.opu import AbstractOpu
from odfa.opu.abilities import flaws
from odfa.opu.replies import one_line
from odfa.project.calibrating import Probe, demodulator_for, linearity_error, noise_floor, paired, ternary
from odfa.project.guard import overlap
from odfa.project.photometry import photometry_of

_LINEAR = 0.2
"""Relative error of superposition allowed: training tolerates 5 % well, and three noisy fields enter each figure."""
_REPEATS = 0.95
"""Correlation of a field with itself shown again: feedback of correlation 0.95 learns like exact feedback."""
_NOISE = 0.05
"""Noise of one pixel over full scale."""
_SATURATED = 0.05
"""Share of clipped pixels at an ordinary density; intensity speckle clips 1 % at a good exposure."""


_GAMMA = (0.65, 1.5)
"""Exponent of counts over light: sound twins measure 0.75 to 1.2, a camera's gamma is 0.45 or 2.2."""
_FOLLOWING = 0.4
"""Rise of a frame's mean over what its speckle foretells: about 1 for a camera left alone, 0 with automatic gain."""
_UNSTEADY = 0.1
"""Third over first differences without a reference: 0.9 with automatic gain, 0 where a modulator moves light about."""
_DEAF = 0.01
"""Share of pixels that do not follow the light; sound sensors have a hundred times fewer."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One promise of the contract, and whether the OPU kept it."""

    name: str
    passed: bool
    value: str
    expected: str
    reason: str = ""
    """Why it failed, in one line; empty where it passed."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All promises of one OPU."""

    opu_id: str
    demodulator: str
    checks: list[Promise]

    @property
    def passed(self) -> bool:
        """True if every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values: verdict, OPU, demodulator, and every check."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "opu_id": self.opu_id, "demodulator": self.demodulator, "checks": checks}


def check(
    opu: AbstractOpu,
    *,
    num_inputs: int | None = None,
    num_modes: int | None = None,
    demodulator: AbstractDemodulator | None = None,
) -> Report:
    """Try an OPU on small patterns; takes about 600 camera frames. Never raises for what the OPU does wrong.

    An OPU that was not open is closed again.

    Args:
        num_inputs: width of the patterns; 64 or what the mirrors allow.
        num_modes: modes to read; 64 or what the camera allows.
        demodulator: by default the first of phase steps, off-axis and anchor that the OPU can do.

    Raises:
        ConfigError: no OPU, no demodulator, or no positive numbers.
    """
    arguments.kind("opu", opu, AbstractOpu)
    for name, count in (("num_inputs", num_inputs), ("num_modes", num_modes)):
        if count is not None:
            arguments.whole(name, count, 1)
    if demodulator is not None:
        arguments.kind("demodulator", demodulator, AbstractDemodulator)
    was_open, opening = opu.is_open, _acting("opening", opu.open)
    name = str(getattr(opu, "opu_id", None) or type(opu).__name__)
    if opening:
        return Report(opu_id=name, demodulator="none", checks=opening)
    used, checks = _in_use(opu, demodulator, num_inputs, num_modes)
    if not was_open:
        checks += _acting("closing", opu.close)
    return Report(opu_id=name, demodulator=used, checks=checks)


def _acting(name: str, act: Callable[[], object]) -> list[Promise]:
    """A failed check where opening or closing fails."""
    try:
        act()
    except OpuError as error:
        return [_failed(name, one_line(error), "no error")]
    return []


def _in_use(
    opu: AbstractOpu, demodulator: AbstractDemodulator | None, num_inputs: int | None, num_modes: int | None
) -> tuple[str, list[Promise]]:
    """The demodulator's name, and what an open OPU shows of itself; only its claims where these make no sense."""
    tests: list[Callable[[Probe], Promise | list[Promise]]] = [
        _shapes, _repeatability, _linearity, _additivity, _noise, _saturation, _pairing, _timing, _camera,
    ]  # fmt: skip
    # claims first: the other tests take their sizes, arm and limits from them
    abilities = _abilities(opu)
    if not abilities.passed:
        return "none", [abilities]
    demodulator = demodulator or demodulator_for(opu)
    try:
        inputs = num_inputs or max(1, min(64, int(opu.num_mirrors / 1.5)))
        probe = Probe(opu, demodulator, inputs, num_modes or _modes(opu, demodulator))
    except OdfaError as error:
        return demodulator.name, [abilities, _failed("demodulator", one_line(error), "one that fits")]
    return demodulator.name, [abilities, *(found for test in tests for found in _guarded(test, probe))]


def _modes(opu: AbstractOpu, demodulator: AbstractDemodulator) -> int:
    for modes in (64, 32, 16, 8, 4, 2):
        if _or_none(lambda modes=modes: demodulator.roi(modes, opu.view)) is not None:  # type: ignore[misc]
            rows, cols = demodulator.roi(modes, opu.view)
            if rows <= opu.shape_cam[0] and cols <= opu.shape_cam[1]:
                return modes
    return 1


def _or_none(make: Callable[[], object]) -> object | None:
    try:
        return make()
    except (OdfaError, AttributeError, TypeError):
        return None


def _guarded(test: Callable[[Probe], Promise | list[Promise]], probe: Probe) -> list[Promise]:
    try:
        found = test(probe)
    except Exception as error:  # a driver may raise anything; the check fails and says what it was
        return [_failed(test.__name__.strip("_"), one_line(error), "an answer")]
    return found if isinstance(found, list) else [found]


def _failed(name: str, reason: str, expected: str) -> Promise:
    return Promise(name=name, passed=False, value="error", expected=expected, reason=reason)


def _verdict(name: str, passed: bool, value: str, expected: str, reason: str) -> Promise:
    return Promise(name=name, passed=passed, value=value, expected=expected, reason="" if passed else reason)


def _abilities(opu: AbstractOpu) -> Promise:
    wrong = flaws(opu)
    reason = f"not stated, or not sensible: {'; '.join(wrong)}"
    return _verdict("abilities", not wrong, "stated" if not wrong else "wrong", "all stated", reason)


def _patterns(probe: Probe, num_patterns: int, density: float = 0.5, seed: int = 0) -> Frames:
    generator = torch_generator(probe.num_inputs, seed)
    level_ND = torch.rand((num_patterns, probe.num_inputs), generator=generator)
    return ternary((level_ND < density / 2).float() - (level_ND > 1 - density / 2).float())


def _shapes(probe: Probe) -> Promise:
    field_NM = probe.field(_patterns(probe, 3))
    counts_NPQ = probe.counts(torch.ones((2, probe.demodulator.inputs(probe.num_inputs)), dtype=torch.bool))
    value = f"{tuple(field_NM.shape)}, counts {counts_NPQ.dtype} up to {int(counts_NPQ.max())}"
    fits = field_NM.shape == (3, probe.num_modes) and bool(
        torch.isfinite(torch.view_as_real(field_NM) if field_NM.is_complex() else field_NM).all()
    )
    fits = fits and int(counts_NPQ.min()) >= 0 and int(counts_NPQ.max()) <= probe.opu.full_scale
    expected = f"(3, {probe.num_modes}) finite, counts in 0 … {probe.opu.full_scale}"
    return _verdict("shapes", fits, value, expected, "fields or counts are out of shape or out of range")


def _repeatability(probe: Probe) -> Promise:
    patterns = _patterns(probe, 8)
    found = overlap(probe.field(patterns), probe.field(patterns)).real
    reason = (
        "the same patterns give other fields: vibration, a drifting reference, too little light, or frames that slip"
    )
    return _verdict("repeatability", found >= _REPEATS, f"{found:.4f}", f">= {_REPEATS}", reason)


def _linearity(probe: Probe) -> Promise:
    found = linearity_error(probe)
    reason = "A(x + y) is not A x + A y: saturation, a wrong phase step, a gamma on the camera, or noise"
    return _verdict("linearity", found <= _LINEAR, f"{found:.4f}", f"<= {_LINEAR}", reason)


def _additivity(probe: Probe) -> Promise:
    """Plus and minus patterns cancel: a pattern shown on both gives nothing."""
    patterns = _patterns(probe, 8)
    same_N2D = patterns.bits_NFD[:, :1].expand(-1, 2, -1).contiguous()
    difference_NM = probe.field(Frames(bits_NFD=same_N2D, gain_NF=patterns.gain_NF, encoder="same"))
    size = float(difference_NM.norm() / probe.field(patterns).norm().clamp_min(1e-30))
    reason = "equal plus and minus patterns do not cancel: the light changes from frame to frame, or frames slip"
    return _verdict("additivity", size <= _LINEAR, f"{size:.4f}", f"<= {_LINEAR}", reason)


def _noise(probe: Probe) -> Promise:
    dark, noise = noise_floor(probe)
    share = noise / probe.opu.full_scale
    value = f"{share:.4f} of full scale, dark level {dark:.1f} counts"
    return _verdict("noise", share <= _NOISE, value, f"<= {_NOISE} of full scale", "equal frames differ too much")


def _saturation(probe: Probe) -> Promise:
    frames = probe.demodulator.expand(_patterns(probe, 8))
    try:
        found = probe.opu.run(frames, roi=probe.roi).acquisition.saturated_fraction
    except Saturated as error:
        return Promise(
            name="saturation", passed=False, value="refused", expected=f"<= {_SATURATED}", reason=one_line(error)
        )
    return _verdict("saturation", found <= _SATURATED, f"{found:.4f}", f"<= {_SATURATED}", "shorten the exposure")


def _pairing(probe: Probe) -> Promise:
    fits = paired(probe)
    reason = "frames do not come back in the order shown: check the trigger, or let Bench measure the lag"
    return _verdict("pairing", fits, "in step" if fits else "out of step", "in step", reason)


def _camera(probe: Probe) -> list[Promise]:
    """Counts in proportion to the light, in every frame and at every pixel."""
    # Without a reference a phase modulator sends the same light to the camera whatever is lit: a mean that does not
    # follow then shows an automatic gain only if third differences do not vanish either.
    found, (low, high) = photometry_of(probe), _GAMMA
    scaled = found.following < _FOLLOWING and (probe.demodulator.arm != "blocked" or found.unsteady > _UNSTEADY)
    told = found.following >= _FOLLOWING and not math.isnan(found.gamma)
    power = f"light to the power {found.gamma:.2f}"
    share, places = f"{found.deaf:.1%} of the pixels", ", ".join(f"({row}, {col})" for row, col in found.where)
    gain = "a frame's mean does not follow the light: switch the camera's automatic gain and automatic exposure off"
    gamma = f"counts go like {power}: switch the camera's gamma or look-up table off, and see that nothing saturates"
    deaf = (
        f"{share} do not follow the light, the first at row and column {places}: hot or dead pixels, or a part of the "
        "camera that no light reaches; correct the pixels in the camera or let it read where they are fewer"
    )
    return [
        _verdict("gain", not scaled, f"mean follows light {found.following:.2f}", f">= {_FOLLOWING}", gain),
        _verdict(
            "response",
            not told or low <= found.gamma <= high,
            power if told else "not measured",
            f"power {low} to {high}",
            gamma,
        ),
        _verdict("pixels", found.deaf <= _DEAF, f"{share} deaf to light", f"<= {_DEAF:.0%}", deaf),
    ]


def _timing(probe: Probe) -> Promise:
    """Frames and seconds spent add up to what was shown, and a frame lasts as long as exposure and frame rate ask."""
    before, start_s = probe.opu.spent, time.perf_counter()
    frames = probe.demodulator.expand(_patterns(probe, 16))
    probe.opu.run(frames, roi=probe.roi)
    took_s, spent = time.perf_counter() - start_s, probe.opu.spent - before
    shown = 16 * frames.frames_per_sample + frames.shared_frames
    frame_s = probe.opu.frame_s(probe.roi)
    exact = spent.frames == shown and math.isclose(spent.seconds, shown * frame_s, rel_tol=1e-6)
    sensible = frame_s >= probe.opu.exposure_s and frame_s >= 1 / probe.opu.rate_hz * (1 - 1e-9)
    value = (
        f"{shown / spent.seconds if spent.seconds else math.inf:.0f} frames/s stated, {shown / took_s:.0f} by the clock"
    )
    expected = f"{shown} frames counted, a frame no shorter than its exposure and 1 / rate_hz"
    return _verdict("timing", exact and sensible, value, expected, f"{spent.frames} frames, {frame_s:g} s each")
