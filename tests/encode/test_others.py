"""Sign, bit planes, threshold: laws, and naive references in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa.encode import BitPlanes, Sign, Spread, Ternary, Threshold, TritPlanes
from odfa.errors import ConfigError, Incompatible
from odfa.keys import torch_generator
from odfa.opu import Twin
from odfa.project import Optical

shapes = st.tuples(st.integers(0, 5), st.integers(1, 40), st.integers(0, 1000))


def rows(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    num_rows, width, seed = shape
    e_ND = torch.randn(num_rows, width, generator=torch_generator(seed), dtype=dtype)
    return e_ND * (torch.rand(num_rows, width, generator=torch_generator(seed, 1)) < 0.7)


def naive_planes(e: float, peak: float, bits: int) -> float:
    if peak == 0:
        return 0.0
    level = round(abs(e) / peak * (2**bits - 1))
    return math.copysign(level * peak / (2**bits - 1), e)


@settings(deadline=None)
@given(shape=shapes, bits=st.integers(1, 12), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_bit_planes_round_to_the_nearest_level(shape, bits, dtype):
    e_ND, encoder = rows(shape, dtype), BitPlanes(bits)
    frames = encoder.encode(e_ND)
    frames.check()
    assert frames.bits_NFD.shape == (shape[0], encoder.patterns_per_sample, shape[1])
    values_ND = frames.values().double()
    for e_D, value_D in zip(e_ND.double(), values_ND, strict=True):
        peak = e_D.abs().max().item()
        assert ((value_D - e_D).abs() <= encoder.relative_error * peak * (1 + 1e-5)).all()
        for e, value in zip(e_D.tolist(), value_D.tolist(), strict=True):
            position = abs(e) / peak * (2**bits - 1) % 1 if peak else 0.0
            if abs(position - 0.5) > 1e-3:  # ties may fall either way
                assert value == pytest.approx(naive_planes(e, peak, bits), abs=1e-5 * max(peak, 1))


@settings(deadline=None)
@given(shape=shapes)
def test_signs_with_the_least_squares_scale(shape):
    e_ND = rows(shape, torch.float64)
    values_ND = Sign().encode(e_ND).values()
    assert torch.equal(values_ND.sign(), e_ND.sign())
    for e_D, value_D in zip(e_ND, values_ND, strict=True):
        assert torch.dot(value_D, e_D - value_D).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("encoder", [Sign(), BitPlanes(5)], ids=repr)
@settings(deadline=None)
@given(shape=shapes, exponent=st.integers(-20, 20))
def test_signed_encoders_are_scale_equivariant_and_odd(encoder, shape, exponent):
    e_ND, factor = rows(shape), 2.0**exponent
    plain, scaled, minus = encoder.encode(e_ND), encoder.encode(factor * e_ND), encoder.encode(-e_ND)
    assert torch.equal(plain.bits_NFD, scaled.bits_NFD)
    torch.testing.assert_close(factor * plain.gain_NF, scaled.gain_NF)
    torch.testing.assert_close(minus.values(), -plain.values())
    assert not plain.bits_NFD[~e_ND.any(1)].any()


def test_cosine_of_the_sign_of_a_gaussian():
    e_ND = torch.randn(200, 500, generator=torch_generator(0), dtype=torch.float64)
    cosine_N = torch.cosine_similarity(e_ND, Sign().encode(e_ND).values())
    assert cosine_N.mean() == pytest.approx(math.sqrt(2 / math.pi), abs=0.003)


@settings(deadline=None)
@given(shape=shapes, level=st.floats(-2, 2))
def test_threshold_is_elementwise(shape, level):
    e_ND = rows(shape)
    assert torch.equal(Threshold(level).encode(e_ND).values(), (e_ND > level).float())


def test_real_vectors_project_within_the_stated_error():
    e_ND = torch.randn(20, 60, generator=torch_generator(0))
    twin, encoder = Twin.ideal(), BitPlanes(8)
    p_NM = Optical(twin, encoder=encoder).shaped(60, 300).project(e_ND)
    exact_NM = e_ND.double() @ (math.sqrt(2) * torch.view_as_real(twin.transmission(60, 150)).flatten(1))
    # rounding is uniform within half a step, so its rms is 1 / sqrt(3) of the largest
    expected = encoder.relative_error / math.sqrt(3) * e_ND.abs().amax(1).double().norm().item() * math.sqrt(60)
    assert ((p_NM - exact_NM).norm() / math.sqrt(300)).item() == pytest.approx(expected, rel=0.1)


def test_a_threshold_cannot_carry_an_error():
    with pytest.raises(Incompatible, match="no minus patterns"):
        Optical(Twin(), encoder=Threshold())


@pytest.mark.parametrize("make", [lambda: BitPlanes(0), lambda: BitPlanes(17), lambda: BitPlanes(2.0),
                                  lambda: Threshold(float("nan")), lambda: Threshold("0")])  # fmt: skip
def test_impossible_encoders_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("encoder", [Sign(), BitPlanes(), Threshold()], ids=repr)
def test_what_is_no_matrix_of_floats_is_refused(encoder):
    for wrong in (torch.ones(3), torch.ones(2, 3, dtype=torch.long), torch.ones(2, 0)):
        with pytest.raises(ConfigError, match=r"expected floating-point rows"):
            encoder.encode(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ternary("stochastic", repeats=3, seed=4),
        lambda: Ternary("sampled", repeats=2, seed=4),
        lambda: TritPlanes(2, seed=4),
        lambda: Spread(TritPlanes(2, seed=4)),
        lambda: Ternary("best_cosine"),
        lambda: BitPlanes(3),
    ],
    ids=lambda make: repr(make()),
)
@settings(deadline=None)
@given(shape=shapes, data=st.data())
def test_parts_of_a_call_have_the_patterns_of_the_whole(make, shape, data):
    e_ND, encoder, in_parts = rows((9, *shape[1:])), make(), make()
    cut = data.draw(st.integers(0, 9))
    for _ in range(2):  # the second call draws anew
        whole = encoder.encode(e_ND)
        parts = [in_parts.encode_part(e_nD, first) for e_nD, first in ((e_ND[:cut], 0), (e_ND[cut:], cut)) if len(e_nD)]
        assert torch.equal(torch.cat([part.bits_NFD for part in parts]), whole.bits_NFD)
        assert torch.equal(torch.cat([part.gain_NF for part in parts]), whole.gain_NF)
        assert in_parts.state_dict() == encoder.state_dict()
