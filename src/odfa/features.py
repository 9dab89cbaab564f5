"""Random projections and optical random features as scikit-learn transformers.

    make_pipeline(OpticalFeatures(n_components=10_000, random_state=0), RidgeClassifier()).fit(X, y)

Everything is made in `fit`: clones and pickles carry settings and what was fitted, never a matrix or an open OPU.
`device` (cpu, cuda, cuda:1, mps, xpu, auto) says where rows are projected; X and the features are NumPy's everywhere.
Shape letters: `N` samples · `D` features · `L` levels · `M` components.
"""

from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from odfa import arguments
from odfa.demodulate import Intensity
from odfa.devices import check_name, device_named
from odfa.encode import Threshold
from odfa.errors import ConfigError, Incompatible, NonFinite
from odfa.opu import TWINS, AbstractOpu, open_opu
from odfa.project import AbstractProjection, Optical, ProjectionSettings
from odfa.project.digital import DigitalSettings
from odfa.project.path import LightPath
from odfa.settings import kinds_of

_ROWS_AT_A_TIME = 1024


def _digital_kinds() -> dict[str, type[DigitalSettings]]:
    """Word → settings of every random matrix that is named by a key."""
    return {word: kind for word, kind in kinds_of(ProjectionSettings).items() if issubclass(kind, DigitalSettings)}


class _Features(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of both transformers: checks inputs, keeps float32, makes sparse rows dense some rows at a time."""

    n_components: int
    random_state: Any
    device: str

    def transform(self, X: Any) -> np.ndarray:
        """Features of the rows of X, dense, float32 for float32 and float64 otherwise.

        Raises:
            ValueError: X has another number of features, or NaN or infinite values.
            NonFinite: values so large that their projection is no number of X's precision.
            ConfigError: this machine lacks the device that `fit` found on another one.
        """
        check_is_fitted(self, "seed_")
        device = device_named(self.device_, "it was fitted there; set device_ to one that is here, such as 'cpu'")
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        out = np.empty((X.shape[0], self.n_components), dtype=X.dtype)
        for rows, part in _parts(X):
            out[rows] = self._features(part, device)
        return out

    def _begin(self, X: Any) -> Any:
        if isinstance(self.n_components, bool) or not isinstance(self.n_components, int | np.integer):
            raise ConfigError(f"n_components must be a positive integer, got {self.n_components!r}")
        if self.n_components < 1:
            raise ConfigError(f"n_components must be a positive integer, got {self.n_components}")
        check_name(self.device)
        self.device_ = _found(self.device)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32])
        if scipy.sparse.issparse(X) and not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        fixed = isinstance(self.random_state, int | np.integer) and not isinstance(self.random_state, bool)
        self.seed_ = int(self.random_state) if fixed else int(check_random_state(self.random_state).randint(2**31 - 1))
        return X

    def _features(self, part: np.ndarray, device: torch.device) -> np.ndarray:
        raise NotImplementedError

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class RandomProjection(_Features):
    """Y = X B / sqrt(n_components), B_dm ~ N(0, 1): keeps distances and inner products (Johnson-Lindenstrauss).

    Args:
        n_components: M, features that come out.
        kind: "hadamard", structured, O(M log D) a row, no stored matrix; "gaussian", independent entries;
            "rademacher", independent signs made on the fly.
        random_state: key of the matrix; an int, a RandomState, or None for another matrix at each fit.
        device: where rows are projected; the matrix is the same everywhere. mps has no float64.

    >>> RandomProjection(3, random_state=0).fit_transform(np.eye(50)).shape
    (50, 3)

    Source: Johnson & Lindenstrauss 1984; the structured matrix: see `odfa.Hadamard`.
    """

    def __init__(
        self, n_components: int = 100, *, kind: Literal["hadamard", "gaussian", "rademacher"] = "hadamard",
        random_state: Any = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.n_components, self.kind, self.random_state, self.device = n_components, kind, random_state, device

    def fit(self, X: Any, y: object = None) -> Self:
        """Name the matrix for X's number of features.

        Raises:
            ConfigError: `n_components` is not a positive integer, `kind` is unknown, or this machine lacks `device`.
        """
        kinds = _digital_kinds()
        if self.kind not in kinds:
            raise ConfigError(f"kind must be one of {', '.join(kinds)}, got {self.kind!r}")
        X = self._begin(X)
        self.projection_: AbstractProjection = (
            kinds[self.kind](seed=self.seed_).bare().shaped(X.shape[1], int(self.n_components))
        )
        return self

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Least-squares inverse, X pinv(B): exact where n_components >= n_features; makes the matrix, 4 D M bytes.

        Raises:
            ConfigError: X does not have n_components columns.
        """
        check_is_fitted(self, "seed_")
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != self.n_components:
            raise ConfigError(f"expected rows of {self.n_components} components, got shape {X.shape}")
        inverse_MD = torch.linalg.pinv(self.projection_.matrix().double() / self.n_components**0.5).numpy()
        kind = np.float32 if X.dtype == np.float32 else np.float64
        return np.asarray((X @ inverse_MD).astype(kind))

    def _features(self, part: np.ndarray, device: torch.device) -> np.ndarray:
        if device.type == "mps" and part.dtype == np.float64:
            raise ConfigError("device=mps computes in float32: expected X of float32, got float64")
        projected = self.projection_.project(torch.from_numpy(part).to(device)).cpu().numpy()
        if not np.isfinite(projected).all():
            raise NonFinite(f"features exceed {projected.dtype}: X reaches {np.abs(part).max():g}; scale it first")
        return np.asarray(projected * projected.dtype.type(1 / self.n_components**0.5))


class OpticalFeatures(_Features):
    """Random features by an OPU: Y = |A b(X)|^2, or linear Re(A b(X)); A complex Gaussian, b bits.

    Each feature drives `levels` inputs: input l is lit where the feature exceeds the l-th level, quantiles of the
    training data, so that b(x) . b(z) counts the levels that both reach. The intensity's kernel is then
    |b(x)|^2 |b(z)|^2 + (b(x) . b(z))^2. Outputs are in units where one lit input gives a mean intensity of 1, divided
    by the number of inputs.

    Args:
        n_components: M, features that come out; at most the camera's pixels.
        kind: "intensity", one frame a row; "linear", through holography, ternary differences, both quadratures.
        opu: name of an OPU (see `odfa opu list`) or an OPU; opened in `fit`. A name of a twin ("twin",
            "opu-2021", "ideal") with `random_state` as its key; with its noise and its camera's bits.
        levels: L, thresholds per feature; D L at most the OPU's mirrors.
        random_state: key of the twin's medium; without meaning for hardware.
        device: where a twin computes: its medium is the same everywhere, its noise is not. Hardware gets patterns from
            the processor.

    >>> OpticalFeatures(8, random_state=0).fit_transform(np.eye(50)).shape
    (50, 8)

    Source: Saade et al., ICASSP 2016, arXiv 1510.06664.
    """

    def __init__(
        self, n_components: int = 100, *, kind: Literal["intensity", "linear"] = "intensity",
        opu: str | AbstractOpu = "opu-2021", levels: int = 4, random_state: Any = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.n_components, self.kind, self.opu = n_components, kind, opu
        self.levels, self.random_state, self.device = levels, random_state, device

    def fit(self, X: Any, y: object = None) -> Self:
        """Choose the levels from X, make and open the OPU.

        Raises:
            ConfigError: a setting is out of range, the OPU is unknown, or this machine lacks `device`.
            Incompatible: the OPU has too few mirrors, pixels, or no reference arm for kind="linear".
        """
        if self.kind not in ("intensity", "linear"):
            raise ConfigError(f"kind must be intensity or linear, got {self.kind!r}")
        if isinstance(self.levels, bool) or not isinstance(self.levels, int | np.integer) or self.levels < 1:
            raise ConfigError(f"levels must be a positive integer, got {self.levels!r}")
        X = self._begin(X)
        self.opu_ = _opu(self.opu, self.seed_)
        mirrors = self.opu_.num_mirrors
        if self.levels > max(1, mirrors // X.shape[1]):  # before anything of that size is made
            raise Incompatible(
                f"levels: {X.shape[1]:,} features share {mirrors:,} mirrors, expected at most "
                f"{mirrors // X.shape[1]:,}, got {self.levels}"
            )
        self.levels_LD_ = _levels(X, int(self.levels))
        self._open()
        return self

    def _open(self) -> None:
        num_inputs, num_outputs = self.levels_LD_.size, int(self.n_components)
        if self.kind == "linear":
            self._optical = Optical(self.opu_).shaped(num_inputs, num_outputs)
        else:
            self._path = LightPath(self.opu_, Intensity(), num_inputs, num_outputs)
        self.opu_.open()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True  # every frame has its own noise
        return tags

    def __getstate__(self) -> dict[str, object]:
        state: dict[str, object] = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("_optical", "_path")}

    def _features(self, part: np.ndarray, device: torch.device) -> np.ndarray:
        bits_ND = (part[:, None, :] > self.levels_LD_).reshape(len(part), -1)
        if not bits_ND.any():
            return np.zeros((len(part), int(self.n_components)), dtype=part.dtype)
        x_ND = torch.from_numpy(bits_ND).to(device if self.opu_.on_device else "cpu").float()
        if not hasattr(self, "_optical" if self.kind == "linear" else "_path"):
            self._open()
        if self.kind == "linear":
            return np.asarray(self._optical.project(x_ND).cpu().numpy() / bits_ND.shape[1] ** 0.5)
        field_NM = self._path.field(Threshold(0.5).encode(x_ND))
        return np.asarray(field_NM.cpu().numpy() / bits_ND.shape[1])


def _found(device: str) -> str:
    """The device by the name that stays right: auto is the accelerator that it found."""
    found = device_named(device, "see odfa env")
    return found.type if found.type in ("cpu", "mps") else str(found)


def _parts(X: Any) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, X.shape[0], _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        part = X[rows].toarray() if scipy.sparse.issparse(X) else X[rows]
        part = np.ascontiguousarray(part)
        yield rows, part if part.flags.writeable else part.copy()


def _levels(X: Any, levels: int) -> np.ndarray:
    """Levels of each feature, (L, D): quantiles of all values that differ from the smallest, zeros of a sparse X too.

    Interpolated between neighbours as `np.quantile` does.
    """
    # Everything is ranked without making a sparse X dense: its zeros are one run of equal values in the sorted order.
    held = X.data if scipy.sparse.issparse(X) else X.reshape(-1)
    num_zeros = X.shape[0] * X.shape[1] - len(held)
    low = float(min(held.min(), 0) if num_zeros and len(held) else held.min() if len(held) else 0)
    num_zeros = num_zeros if low < 0 else 0
    lit = np.sort(held[held > low])
    zeros = int(np.searchsorted(lit, 0))

    def value(rank: int) -> float:
        """The value at a rank among all values above the smallest, implicit zeros among them."""
        if zeros <= rank < zeros + num_zeros:
            return 0.0
        return float(lit[rank if rank < zeros else rank - num_zeros])

    count = len(lit) + num_zeros
    chosen_L = np.full(levels, low)
    for level in range(levels if count else 0):
        rank, part = divmod((count - 1) * ((level + 0.5) / levels), 1)
        # halves: the difference of two large values of different signs is no number
        below, above = value(int(rank)) / 2, value(min(int(rank) + 1, count - 1)) / 2
        step = above - below
        chosen_L[level] = 2 * (below + step * part if part < 0.5 else above - step * (1 - part))
    # the next smaller number, so that a value equal to its level counts as above it: constant data would give no bits
    below_L = np.nextafter(chosen_L, -np.inf)
    return np.ascontiguousarray(np.broadcast_to(below_L[:, None], (levels, X.shape[1])))


def _opu(opu: str | AbstractOpu, seed: int) -> AbstractOpu:
    if not isinstance(opu, str):
        arguments.kind("opu", opu, AbstractOpu)
        return opu
    return open_opu(opu, seed=seed) if opu in TWINS else open_opu(opu)
