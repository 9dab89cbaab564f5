"""scikit-learn transformers: the estimator's contract, sparse rows, pipelines, pickles, OPUs."""

import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import odfa
from odfa.errors import ConfigError, Incompatible, NonFinite
from odfa.features import OpticalFeatures, RandomProjection
from tests.far import one_accelerator

EVERY = {
    "hadamard": RandomProjection(20, random_state=0),
    "gaussian": RandomProjection(20, kind="gaussian"),
    "rademacher": RandomProjection(20, kind="rademacher", random_state=np.random.RandomState(1)),
    "intensity": OpticalFeatures(20, random_state=0),
    "linear": OpticalFeatures(20, kind="linear", opu="ideal", random_state=0),
}
RANDOM = {name: estimator for name, estimator in EVERY.items() if isinstance(estimator, RandomProjection)}


@pytest.mark.parametrize("estimator", EVERY.values(), ids=EVERY)
def test_keeps_the_contract_of_estimators(estimator):
    check_estimator(estimator, on_skip=None)


@pytest.mark.parametrize("estimator", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_equals_dense_and_dtypes_stay(estimator, dtype):
    X = scipy.sparse.random(1100, 50, 0.1, random_state=0, dtype=dtype, format="csr")
    fitted = clone(estimator).fit(X)
    Y = fitted.transform(X)
    assert Y.dtype == dtype
    np.testing.assert_allclose(Y, fitted.transform(X.toarray()), rtol=1e-5, atol=1e-6)
    expected = X.toarray() @ fitted.projection_.matrix().numpy() / 20**0.5
    np.testing.assert_allclose(Y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["hashed", "explicit zeros", "twice", "none", "all one"])
def test_levels_are_those_of_all_values_however_they_are_held(form):
    """Zeros that a sparse matrix does not hold are values like others where some are negative."""
    X = HashingVectorizer(n_features=64).fit_transform(["the cat sat", "dogs run"] * 9)
    if form == "explicit zeros":
        X.data[::2] = 0
    if form == "twice":  # entries of one place, not yet added up
        X = scipy.sparse.csr_matrix((np.r_[X.data, X.data], np.r_[X.indices, X.indices], [0, *[X.nnz] * 17, 2 * X.nnz]))
    if form in ("none", "all one"):
        X = scipy.sparse.csr_matrix(np.full((4, 8), float(form == "all one")))
    for levels in (1, 4, 7):
        optical = OpticalFeatures(9, opu="ideal", levels=levels, random_state=0)
        sparse, dense = clone(optical).fit(X), clone(optical).fit(X.toarray())
        values = X.toarray().reshape(-1)
        lit = values[values > values.min()]
        wanted = np.quantile(lit, (np.arange(levels) + 0.5) / levels) if len(lit) else np.full(levels, values.min())
        for fitted in (sparse, dense):
            np.testing.assert_array_equal(fitted.levels_LD_[:, 0], np.nextafter(wanted, -np.inf))
        np.testing.assert_array_equal(sparse.transform(X), dense.transform(X.toarray()))


def test_levels_between_the_largest_values_of_both_signs():
    X = np.array([[-1.7e308, 1.7e308]])
    levels = OpticalFeatures(3, levels=2, random_state=0).fit(np.vstack([X, X, X[:, ::-1]])).levels_LD_
    assert np.isfinite(levels).all()


@pytest.mark.parametrize("kind", ["hadamard", "gaussian", "rademacher"])
@pytest.mark.parametrize(("dtype", "huge"), [(np.float32, 9.96921e36), (np.float64, 1e300)])
@pytest.mark.parametrize("features", [20, 300])
def test_one_huge_value_leaves_numbers(kind, dtype, huge, features):
    Z = np.ones((3, features), dtype)
    Z[0, 7], Z[1, 7] = huge, 2.0
    fitted = RandomProjection(6, kind=kind, random_state=0).fit(Z)
    Y = fitted.transform(Z)
    expected = Z.astype(np.longdouble) @ fitted.projection_.matrix().numpy().astype(np.longdouble) / 6**0.5
    np.testing.assert_allclose(Y[0], expected[0].astype(np.float64), rtol=1e-5)
    np.testing.assert_allclose(Y[1:], fitted.transform(Z[1:]), rtol=1e-6, atol=1e-6)  # the others are as without it


def test_features_that_are_no_numbers_are_not_returned():
    Z = np.full((2, 300), np.finfo(np.float32).max, np.float32)
    fitted = RandomProjection(6, random_state=0).fit(Z)
    with pytest.raises(NonFinite, match=r"features exceed float32: X reaches 3.40282e\+38; scale it first"):
        fitted.transform(Z)
    assert np.isfinite(fitted.transform(Z / 1e10)).all()


def test_pickles_and_names():
    X = np.random.default_rng(0).standard_normal((5, 300))
    fitted = RandomProjection(40, random_state=3).fit(X)
    other = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(other.transform(X), fitted.transform(X))
    assert fitted.get_feature_names_out()[:2].tolist() == ["randomprojection0", "randomprojection1"]
    assert len(pickle.dumps(fitted)) < 5000
    again = RandomProjection(40, random_state=3).fit(X)
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    assert (RandomProjection(40, random_state=4).fit_transform(X) != fitted.transform(X)).all()


def test_distances_are_kept():
    X = np.random.default_rng(0).standard_normal((20, 3000))
    Y = RandomProjection(4000, random_state=0).fit_transform(X)
    ratio = np.linalg.norm(Y[:, None] - Y[None], axis=2)[~np.eye(20, dtype=bool)]
    ratio = ratio / np.linalg.norm(X[:, None] - X[None], axis=2)[~np.eye(20, dtype=bool)]
    assert np.abs(ratio - 1).max() < 0.08


def test_inverse():
    X = np.random.default_rng(0).standard_normal((4, 30))
    fitted = RandomProjection(100, random_state=0).fit(X)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(X)), X, atol=1e-5)
    with pytest.raises(ConfigError, match="100 components"):
        fitted.inverse_transform(X)


def test_intensities_follow_the_kernel():
    """E |a.x|^2 |a.z|^2 = |x|^2 |z|^2 + (x.z)^2 for bits x, z."""
    X = (np.random.default_rng(0).random((2, 64)) > 0.5).astype(float)
    Y = OpticalFeatures(20_000, opu="ideal", levels=1, random_state=0).fit_transform(X) * 64
    same, shared = X.sum(1), float(X[0] @ X[1])
    np.testing.assert_allclose(Y.mean(1), same, rtol=0.05)
    assert (Y[0] * Y[1]).mean() == pytest.approx(same[0] * same[1] + shared**2, rel=0.08)


def test_digits_in_a_pipeline():
    X, y = load_digits(return_X_y=True)
    model = make_pipeline(OpticalFeatures(2000, random_state=0), RidgeClassifier(alpha=1e-2))
    model.fit(X[:1200], y[:1200])
    assert model.score(X[1200:], y[1200:]) > 0.9
    other = pickle.loads(pickle.dumps(model))
    assert other.score(X[1200:], y[1200:]) > 0.9


@pytest.mark.parametrize("kind", ["intensity", "linear"])
def test_an_opu_of_ones_own(kind):
    opu = odfa.Twin(seed=5)
    X = np.eye(30) + np.eye(30, k=1)
    Y = OpticalFeatures(50, kind=kind, opu=opu).fit_transform(X)
    assert Y.shape == (30, 50)
    assert opu.spent.frames > 0


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (RandomProjection(0), "positive integer"),
        (RandomProjection(2.5), "positive integer"),
        (RandomProjection(3, kind="fourier"), "kind"),
        (OpticalFeatures(3, kind="phase"), "kind"),
        (OpticalFeatures(3, levels=0), "levels"),
        (OpticalFeatures(3, opu="opu-2020"), "did you mean"),
    ],
    ids=str,
)
def test_bad_settings(estimator, message):
    with pytest.raises(ConfigError, match=message):
        estimator.fit(np.eye(3))


def test_more_outputs_than_an_opu_has():
    with pytest.raises(Incompatible, match="camera pixels"):
        OpticalFeatures(3_000_000).fit(np.eye(3))
    with pytest.raises(Incompatible, match="mirrors"):
        OpticalFeatures(3, levels=400_000).fit(np.eye(3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_values(bad):
    X = np.eye(3)
    X[0, 0] = bad
    for estimator in (RandomProjection(3), OpticalFeatures(3)):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            estimator.fit(X)


def test_levels_that_would_fill_the_memory_are_refused_before_they_are_made():
    with pytest.raises(Incompatible, match=r"levels: 3 features share 1,039,680 mirrors, expected at most 346,560"):
        OpticalFeatures(3, levels=10**9).fit(np.eye(3))


@pytest.fixture
def far(monkeypatch):
    """One accelerator, whose random numbers are the processor's."""
    with one_accelerator(monkeypatch):
        yield


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("estimator", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("device", ["mps", "auto"])
def test_an_accelerator_projects_as_the_processor_does(estimator, sparse, device):
    X = scipy.sparse.random(30, 50, 0.1, random_state=0, dtype=np.float32, format="csr")
    X = X if sparse else X.toarray()
    near = clone(estimator).set_params(random_state=0)
    there = clone(near).set_params(device=device)
    assert (there.device, clone(there).device) == (device, device)
    Y = there.fit(X).transform(X)
    assert (there.device, there.device_) == (device, "mps")
    assert Y.dtype == np.float32
    np.testing.assert_allclose(Y, near.fit(X).transform(X), rtol=2e-5, atol=2e-6)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("kind", ["intensity", "linear"])
def test_hardware_gets_patterns_of_the_processor(kind):
    class Hardware(odfa.Twin):
        on_device = False

    X = np.eye(30, dtype=np.float32)
    near, there = (
        OpticalFeatures(50, kind=kind, opu=Hardware(seed=5), device=device).fit_transform(X)
        for device in ("cpu", "mps")
    )
    np.testing.assert_array_equal(there, near)


@pytest.mark.usefixtures("far")
def test_float64_is_refused_where_there_is_none():
    X = np.ones((3, 50))
    with pytest.raises(ConfigError, match="device=mps computes in float32: expected X of float32, got float64"):
        RandomProjection(20, device="mps").fit_transform(X)
    assert RandomProjection(20, device="mps").fit_transform(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("make", [RandomProjection, OpticalFeatures])
def test_an_absent_device_is_refused_in_fit_and_can_be_changed_after_a_pickle(make, monkeypatch):
    X = np.random.default_rng(0).standard_normal((5, 30)).astype(np.float32)
    made = make(9, random_state=0, device="cuda:99")  # stored as it is: scikit-learn's clones need that
    with pytest.raises(ConfigError, match=r"got cuda:99; torch .* sees no such device \(see odfa env\)"):
        made.fit(X)
    with pytest.raises(ConfigError, match="device: expected cpu, cuda, cuda:N, mps, xpu, xpu:N or auto, got 'gpu'"):
        make(9, device="gpu").fit(X)
    with pytest.raises(ConfigError, match="got 3"):
        make(9, device=3).fit(X)
    monkeypatch.setattr("odfa.devices.accelerators", lambda: [torch.device("cuda", 1)])
    text = pickle.dumps(make(9, random_state=0, device="auto").fit(X))
    monkeypatch.undo()
    fitted = pickle.loads(text)
    assert (fitted.device, fitted.device_) == ("auto", "cuda:1")
    with pytest.raises(ConfigError, match=r"\(it was fitted there; set device_ to one that is here, such as 'cpu'\)"):
        fitted.transform(X)
    fitted.device_ = "cpu"
    np.testing.assert_array_equal(fitted.transform(X), make(9, random_state=0).fit(X).transform(X))
