"""Phase-shifting holography against complex arithmetic in float64."""

import cmath

import pytest
import torch

from odfa.demodulate import PhaseSteps
from odfa.errors import ConfigError, FrameMismatch
from odfa.flow import Acquisition, Capture, Frames, View
from odfa.keys import torch_generator

N, F, D, P, Q = 3, 2, 4, 2, 5
REFERENCE = 1e4


def field(seed: int) -> torch.Tensor:
    return torch.randn(N, F, P * Q, dtype=torch.complex128, generator=torch_generator(seed)) * 3e3


def frames_for(steps: int) -> Frames:
    gain_NF = torch.randn(N, F, generator=torch_generator(9))
    bits_NFD = torch.ones(N, F, D, dtype=torch.bool)
    return PhaseSteps(steps).expand(Frames(bits_NFD=bits_NFD, gain_NF=gain_NF, encoder="test"))


def capture_of(intensity_NFSM: torch.Tensor) -> Capture:
    counts_NFPQ = intensity_NFSM.round().to(torch.int32).flatten(1, 2).unflatten(2, (P, Q))
    return Capture(
        counts_NFPQ=counts_NFPQ,
        acquisition=Acquisition(
            opu_id="test",
            view=View(shape=(P, Q)),
            exposure_s=1e-3,
            rate_hz=1.0,
            saturated_fraction=0.0,
            time_s=0.0,
            counts_per_intensity=1.0,
            counts_per_field=REFERENCE,
        ),
    )


def interference(field_NFM: torch.Tensor, frames: Frames) -> torch.Tensor:
    return torch.stack([(field_NFM + REFERENCE * cmath.exp(1j * theta)).abs() ** 2 for theta in frames.phase_S], dim=2)


@pytest.mark.parametrize("steps", [3, 4])
def test_recovers_the_recombined_field(steps):
    frames, field_NFM = frames_for(steps), field(0)
    capture = capture_of(interference(field_NFM, frames))
    capture.check()
    result = PhaseSteps(steps).demodulate(capture, frames)
    result.check()
    expected_NM = (frames.gain_NF.double()[..., None] * field_NFM).sum(1)
    torch.testing.assert_close(result.field_NM.to(torch.complex128), expected_NM, rtol=1e-6, atol=1e-3)


def test_four_steps_equal_the_textbook_formula():
    frames = frames_for(4)
    intensity_NFSM = interference(field(1), frames).round()
    i0, i1, i2, i3 = intensity_NFSM.unbind(2)
    z_NFM = ((i0 - i2) / 4 + 1j * (i1 - i3) / 4) / REFERENCE
    expected_NM = (frames.gain_NF.double()[..., None] * z_NFM).sum(1)
    result = PhaseSteps(4).demodulate(capture_of(intensity_NFSM), frames)
    torch.testing.assert_close(result.field_NM.to(torch.complex128), expected_NM, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("steps", [3, 4])
def test_constant_background_cancels(steps):
    frames = frames_for(steps)
    intensity_NFSM = interference(field(2), frames)
    background_M = (torch.rand(P * Q, generator=torch_generator(3)) * 1e8).double()
    plain, biased = (
        PhaseSteps(steps).demodulate(capture_of(i), frames) for i in (intensity_NFSM, intensity_NFSM + background_M)
    )
    torch.testing.assert_close(plain.field_NM, biased.field_NM, rtol=0, atol=2e-3)


@pytest.mark.parametrize("steps", [3, 4])
def test_static_fringes_cancel_between_plus_and_minus(steps):
    frames = frames_for(steps)
    frames.gain_NF[:, 0], frames.gain_NF[:, 1] = 1.5, -1.5
    intensity_NFSM = interference(field(4), frames)
    fringes_SM = torch.rand(steps, P * Q, generator=torch_generator(5)).double() * 1e8
    plain, biased = (
        PhaseSteps(steps).demodulate(capture_of(i), frames) for i in (intensity_NFSM, intensity_NFSM + fringes_SM)
    )
    torch.testing.assert_close(plain.field_NM, biased.field_NM, rtol=0, atol=2e-3)
    frames.gain_NF[:, 1] = 0.0
    alone, alone_biased = (
        PhaseSteps(steps).demodulate(capture_of(i), frames) for i in (intensity_NFSM, intensity_NFSM + fringes_SM)
    )
    assert (alone.field_NM - alone_biased.field_NM).abs().max() > 100


def test_frames_per_sample():
    assert frames_for(4).frames_per_sample == PhaseSteps(4).exposures(F) == 8
    assert frames_for(3).frames_per_sample == PhaseSteps(3).exposures(F) == 6


def test_other_frame_counts_are_refused():
    frames = frames_for(4)
    capture = capture_of(interference(field(0), frames_for(3)))
    with pytest.raises(FrameMismatch, match="expected 8 frames"):
        PhaseSteps(4).demodulate(capture, frames)


@pytest.mark.parametrize("steps", [2, 5, "4"])
def test_other_numbers_of_steps_are_refused(steps):
    with pytest.raises(ConfigError, match="3 or 4"):
        PhaseSteps(steps)
