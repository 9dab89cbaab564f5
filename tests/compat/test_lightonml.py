"""The drop-in, against the published construction of the old simulator's matrix and naive encoders."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.opu.rig import rig

from odfa.compat.lightonml import OPU, OutputRescaling
from odfa.compat.lightonml.context import ContextArray
from odfa.compat.lightonml.encoding.base import (
    BinaryThresholdEncoder,
    ConcatenatedBitPlanEncoder,
    ConcatenatingBitPlanDecoder,
    MultiThresholdEncoder,
    SeparatedBitPlanDecoder,
    SeparatedBitPlanEncoder,
    SequentialBaseTwoEncoder,
)
from odfa.compat.lightonml.projections.sklearn import OPUMap as SklearnMap
from odfa.compat.lightonml.projections.torch import OPUMap as TorchMap
from odfa.errors import ConfigError, Disconnected
from odfa.opu import Twin


def published_matrix(n: int, m: int, seed: int = 0) -> np.ndarray:
    generator = np.random.RandomState(seed)
    real = generator.normal(0, 1 / np.sqrt(n), (n, m))
    return real + 1j * generator.normal(0, 1 / np.sqrt(n), (n, m))


def bits(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint8)


def opu(n: int = 60, m: int = 90, **settings: object) -> OPU:
    return OPU(m, max_n_features=n, simulated=True, **settings)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (60, 90), (1000, 300)])
def test_transforms_agree_with_the_old_simulators_matrix(n, m, seed):
    x, matrix = bits(20, n), published_matrix(n, m, seed)
    ours = opu(n, m, seed=seed, rescale="none")
    ours.fit1d(x)
    exact = np.abs(x @ matrix) ** 2
    assert np.abs(ours.transform(x) - exact).max() <= 1e-5 * exact.mean()
    linear = (x @ matrix).real
    assert np.abs(ours.linear_transform(x) - linear).max() <= 1e-5 * np.abs(linear).max()


@pytest.mark.parametrize(("rescale", "divisor"), [("variance", math.sqrt(60)), ("norm", math.sqrt(90)), ("none", 1.0)])
def test_rescaling_divides_as_documented(rescale, divisor):
    x = bits(5, 60)
    ours = opu(rescale=OutputRescaling[rescale])
    ours.fit1d(x)
    expected = (x @ published_matrix(60, 90)).real / divisor
    np.testing.assert_allclose(ours.linear_transform(x), expected, atol=1e-5)


def test_shapes_of_vectors_batches_images_packed_and_online():
    ours, x = opu(), bits(2, 3, 60)
    exact = np.abs(x @ published_matrix(60, 90)) ** 2
    for value, expected in ((x, exact), (x[0], exact[0]), (x[0, 0], exact[0, 0])):
        np.testing.assert_allclose(ours.fit_transform1d(value), expected, atol=1e-4)
    images = x.reshape(6, 6, 10)
    for value, expected in ((images, exact.reshape(6, 90)), (images[0], exact[0, 0])):
        np.testing.assert_allclose(ours.fit_transform2d(value), expected, atol=1e-4)
    packed = np.packbits(x[0], axis=-1)
    ours.fit1d(n_features=60, packed=True)
    np.testing.assert_allclose(ours.transform(packed), exact[0], atol=1e-4)
    np.testing.assert_allclose(ours.fit_transform2d(packed, packed=True, n_2d_features=(6, 10)), exact[0], atol=1e-4)
    ours.fit1d(n_features=60, online=True)
    np.testing.assert_allclose(ours.transform(x[0, 1]), exact[0, 1], atol=1e-4)


def test_fewer_features_use_the_first_rows():
    ours, x = opu(), bits(4, 25)
    np.testing.assert_allclose(ours.fit_transform1d(x), np.abs(x @ published_matrix(60, 90)[:25]) ** 2, atol=1e-4)


def test_tensors_in_tensors_out_and_arrays_carry_their_context():
    ours, x = opu(), bits(4, 60)
    array = ours.fit_transform1d(x)
    assert isinstance(array, ContextArray)
    assert array.context.n_ones == round(x.sum() / 4)
    assert (array.context.exposure_us, array.context.frametime_us) == (400, 500)
    tensor = ours.transform(torch.from_numpy(x).float().requires_grad_())
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad
    np.testing.assert_allclose(tensor, array)


def test_settings_can_change_and_pickles_carry_the_key():
    ours, x = opu(), bits(4, 60)
    ours.fit1d(x)
    expected = ours.transform(x)
    copied = pickle.loads(pickle.dumps(ours))
    assert len(pickle.dumps(ours)) < 5000
    assert np.array_equal(copied.transform(x), expected)
    ours.n_components = 40
    assert ours.transform(x).shape == (4, 40)
    ours.max_n_features = 80
    np.testing.assert_allclose(
        ours.fit_transform1d(bits(2, 80)), np.abs(bits(2, 80) @ published_matrix(80, 40)) ** 2, atol=1e-4
    )
    ours.rescale = "norm"
    assert ours.rescale is OutputRescaling.norm


@pytest.mark.parametrize("arm", ["stepped", "tilted", "blocked"])
def test_any_opu_takes_its_place(arm):
    x = bits(6, 50)
    bench, _ = rig(50 + 15 * (arm == "blocked"), arm=arm)
    with OPU(30, opu_device=bench, rescale="none") as ours:
        ours.fit1d(x)
        first, again = ours.linear_transform(x), ours.linear_transform(x)
    assert np.corrcoef(first.ravel(), again.ravel())[0, 1] > 0.97
    twin = OPU(30, opu_device=Twin(), rescale="none")
    twin.fit1d(x)
    counts = twin.transform(x)
    assert (counts.dtype, counts.shape) == (np.uint8, (6, 30))
    variance = np.var(twin.linear_transform(bits(200, 50)))
    assert variance == pytest.approx(0.5, rel=0.3)  # |x|^2 / n on average


@pytest.mark.parametrize(
    "wrong",
    [
        np.full((3, 60), 0.7),
        np.full((3, 60), -1),
        np.full((3, 60), 255, dtype=np.uint8),
        np.full((3, 60), np.nan),
        torch.full((3, 60), 0.3),
    ],
)
def test_what_the_old_library_bent_in_silence_is_refused(wrong):
    ours = opu()
    with pytest.raises(ConfigError, match="expected bits, 0 or 1"):
        ours.fit_transform1d(wrong)
    ours.fit1d(n_features=60)
    for project in (ours.transform, ours.linear_transform):
        with pytest.raises(ConfigError, match="expected bits, 0 or 1"):
            project(wrong)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: OPU(10), "no OPU: say simulated=True"),
        (lambda: OPU(0, simulated=True), "n_components must be a positive integer, got 0"),
        (lambda: OPU(10, simulated=True, opu_device=Twin()), "contradict"),
        (lambda: OPU(10, opu_device="opu"), "must be an odfa.AbstractOpu, got str"),
        (lambda: OPU(10, simulated=True, rescale="best"), "rescale must be one of variance, norm, none"),
        (lambda: opu().transform(bits(3, 60)), "call fit1d or fit2d"),
        (lambda: opu().fit1d(), "expected an input X or n_features"),
        (lambda: opu().fit_transform1d(bits(0, 60)), "empty batch"),
        (lambda: opu().fit_transform1d(bits(2, 61)), "61 features, at most 60"),
        (lambda: opu().fit_transform2d(bits(60)), "expected vectors of 2 dimensions"),
        (lambda: opu().fit2d(bits(3, 60), packed=True), "needs n_features"),
        (lambda: SklearnMap(10).fit(bits(2, 60)), "no OPU"),
        (lambda: TorchMap(10, simulated=True), "needs max_n_features"),
        (lambda: TorchMap(10, ndims=3, simulated=True, max_n_features=5), "ndims must be 1 or 2"),
        (lambda: BinaryThresholdEncoder("mean"), "number or 'auto'"),
        (lambda: BinaryThresholdEncoder().transform(bits(2, 3)), "call fit before"),
        (lambda: BinaryThresholdEncoder(0.0).transform(np.full((2, 3), np.nan)), "finite"),
        (lambda: SequentialBaseTwoEncoder(12), "power of 2"),
        (lambda: SeparatedBitPlanEncoder(9), "1 to 8"),
        (lambda: ConcatenatedBitPlanEncoder(9).transform(bits(2, 3)), "exceed the 8 bits"),
        (lambda: ConcatenatedBitPlanEncoder().transform(np.ones((2, 3))), "unsigned integers"),
    ],
)
def test_mistakes_are_named_in_one_line(act, words):
    with pytest.raises(ConfigError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_a_closed_opu_says_so():
    ours = opu(open_at_init=False)
    ours.fit1d(n_features=60)
    with pytest.raises(Disconnected, match=r"use opu.open\(\)"):
        ours.transform(bits(2, 60))
    with ours:
        assert ours.transform(bits(2, 60)).shape == (2, 90)


@pytest.mark.parametrize("value", [0.5, -0.3])
def test_floats_project_through_separated_bit_planes(value):
    x = np.random.default_rng(0).uniform(-1, 1, (8, 60)) + value
    ours = opu(rescale="none")
    ours.fit1d(n_features=60)
    found = ours.linear_transform(x, SeparatedBitPlanEncoder(precision=8), SeparatedBitPlanDecoder)
    exact = (x @ published_matrix(60, 90)).real
    assert np.abs(found - exact).std() < 0.01 * exact.std()


@settings(deadline=None)
@given(x=hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-31, 31)))
def test_integers_survive_separated_bit_planes_exactly(x):
    encoder = SeparatedBitPlanEncoder(precision=5)
    planes = encoder.transform(x)
    assert set(np.unique(planes)) <= {0, 1}
    np.testing.assert_allclose(SeparatedBitPlanDecoder(**encoder.get_params()).transform(planes), x, atol=1e-9)


@settings(deadline=None)
@given(x=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)), start=st.integers(0, 4))
def test_concatenated_bit_planes_are_the_binary_digits(x, start):
    found = ConcatenatedBitPlanEncoder(n_bits=4, starting_bit=start).transform(x)
    expected = [[int(digit) for value in row for digit in f"{value:08b}"[start : start + 4]] for row in x]
    assert found.tolist() == expected


@settings(deadline=None)
@given(x=hnp.arrays(np.float64, (5, 4), elements=st.floats(-9, 9, width=16)), levels=st.sampled_from([2, 4, 16, 256]))
def test_base_two_digits_are_repeated_by_their_weight(x, levels):
    encoder = SequentialBaseTwoEncoder(levels).fit(x)
    found = encoder.transform(x).reshape(5, 4, levels - 1)
    assert np.array_equal(found.sum(2), encoder.normalize(x))  # each bit counts as often as it weighs
    width = levels.bit_length() - 1
    for level, code in zip(encoder.normalize(x).ravel(), found.reshape(-1, levels - 1), strict=True):
        expected = [int(d) for k, d in enumerate(f"{level:0{width}b}") for _ in range(2 ** (width - 1 - k))]
        assert code.tolist() == expected


@pytest.mark.parametrize("columnwise", [False, True])
@pytest.mark.parametrize("thresholds", ["linspace", "quantiles"])
def test_thermometer_codes(thresholds, columnwise):
    x = np.random.default_rng(0).normal(size=(200, 3))
    encoder = MultiThresholdEncoder(thresholds, n_bins=5, columnwise=columnwise).fit(x)
    found = encoder.transform(x).reshape(200, 4, 3)
    for d in range(3):
        column = x[:, d] if columnwise else x
        edges = np.linspace(column.min(), column.max(), 6)[1:-1]
        if thresholds == "quantiles":
            edges = np.quantile(column, [0.2, 0.4, 0.6, 0.8], method="midpoint")
        assert np.array_equal(found[:, :, d], (x[:, d, None] > edges).astype(np.uint8))
    assert (np.diff(found.astype(int), axis=1) <= 0).all()


def test_thresholds_of_medians_and_reversed():
    x = np.random.default_rng(0).normal(size=(101, 4))
    found = BinaryThresholdEncoder().fit(x).transform(x)
    assert found.sum(0).tolist() == [50] * 4
    assert np.array_equal(BinaryThresholdEncoder(0.2, greater_is_one=False).transform(x), (x < 0.2).astype(np.uint8))
    assert isinstance(BinaryThresholdEncoder(0.0).transform(torch.from_numpy(x)), torch.Tensor)


def test_concatenating_decoder_weighs_planes():
    outputs = np.arange(12.0).reshape(6, 2)
    found = ConcatenatingBitPlanDecoder(n_bits=3).transform(outputs)
    expected = [[outputs[3 * n + k, m] * 0.5**k for k in range(3) for m in range(2)] for n in range(2)]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("linear", [False, True])
def test_maps_for_scikit_learn_and_torch(linear):
    from sklearn.base import clone
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline

    x = bits(40, 60)
    direct = opu(rescale="variance")
    direct.fit1d(x)
    expected = direct.linear_transform(x) if linear else direct.transform(x)
    ours = clone(SklearnMap(90, simulated=True, max_n_features=60, linear=linear))
    np.testing.assert_allclose(ours.fit(x).transform(x), expected, rtol=1e-6)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(ours)).transform(x), expected, rtol=1e-6)
    assert ours.get_params()["n_components"] == 90
    pipeline = make_pipeline(clone(ours), RidgeClassifier()).fit(x, x[:, 0])
    assert pipeline.predict(x).shape == (40,)
    module = TorchMap(90, simulated=True, max_n_features=60, linear=linear)
    output = module(torch.from_numpy(x))
    assert not output.requires_grad
    np.testing.assert_allclose(output, expected, rtol=1e-6)
    assert "out_features=90" in repr(module)
