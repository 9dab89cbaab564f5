"""The class `OPU` of the archived library, implemented with odfa's OPUs.

In its units the transmission matrix R has independent real and imaginary parts of variance 1 / n each;
odfa's fields come from A with E|A|^2 = 1, so R = sqrt(2 / n) A.
"""

import inspect
import math
import warnings
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from odfa.compat.lightonml.context import Context, ContextArray
from odfa.compat.lightonml.encoding.base import NoDecoding, NoEncoding
from odfa.compat.lightonml.inputs import Data, Traits, traits_of
from odfa.compat.lightonml.types import InputRoiStrategy, OutputRescaling
from odfa.demodulate import AbstractDemodulator, Intensity
from odfa.errors import ConfigError, Disconnected
from odfa.flow import Frames
from odfa.opu import AbstractOpu, Twin
from odfa.project.calibrating import demodulator_for
from odfa.project.path import LightPath

_VECTORS_AT_A_TIME = 3000


class OPU:
    """y = |R x|^2 by `transform`, y = R x by `linear_transform`, for binary x.

    >>> opu = OPU(n_components=5, max_n_features=8, simulated=True, seed=1)
    >>> opu.fit_transform1d(np.ones((2, 8), dtype=np.uint8)).shape
    (2, 5)
    """

    def __init__(
        self,
        n_components: int = 200_000,
        opu_device: AbstractOpu | None = None,
        max_n_features: int = 1000,
        config_file: str = "",
        config_override: dict[str, object] | None = None,
        verbose_level: int = -1,
        input_roi_strategy: InputRoiStrategy = InputRoiStrategy.full,
        open_at_init: bool | None = None,
        disable_pbar: bool = False,
        simulated: bool = False,
        rescale: OutputRescaling | str = OutputRescaling.variance,
        *,
        seed: int = 0,
    ) -> None:
        """Choose the OPU; arguments keep that library's order and names, `seed` is new.

        Args:
            n_components: outputs.
            opu_device: any odfa OPU: a twin with noise, a bench.
            max_n_features: rows of the simulated matrix.
            simulated: a noise-free twin with the old simulator's matrix.
            rescale: scale of `linear_transform`.
            seed: key of the simulated matrix; the old simulator always used 0.
            open_at_init: open the OPU now; True unless said otherwise.
            input_roi_strategy: taken for compatibility; features always fill the mirrors.
            config_file, config_override, verbose_level, disable_pbar: taken for compatibility, without effect.

        Raises:
            ConfigError: no OPU, two OPUs, or numbers below 1.
        """
        if simulated and opu_device is not None:
            raise ConfigError("simulated=True and opu_device=... contradict each other; give one of them")
        if not simulated and opu_device is None:
            raise ConfigError("no OPU: say simulated=True, or hand in opu_device=odfa.open_opu(NAME)")
        if opu_device is not None and not isinstance(opu_device, AbstractOpu):
            raise ConfigError(f"opu_device must be an odfa.AbstractOpu, got {type(opu_device).__name__}")
        if config_file or config_override or verbose_level != -1:
            warnings.warn("config_file, config_override and verbose_level have no effect here", stacklevel=2)
        self._seed, self._simulated = seed, simulated
        self._max_n_features = _positive("max_n_features", max_n_features)
        self._n_components = _positive("n_components", n_components)
        self.rescale = rescale
        self.input_roi_strategy, self.disable_pbar = input_roi_strategy, disable_pbar
        self._traits: Traits | None = None
        self._device: AbstractOpu | None = opu_device
        self._active = False
        if open_at_init is None or open_at_init:
            self.open()

    @property
    def device(self) -> AbstractOpu:
        """The odfa OPU that projects; a simulated one is built when it is first needed."""
        if self._device is None:
            matrix_DM = simulated_matrix(self._max_n_features, self._n_components, self._seed)
            self._device = Twin.ideal(matrix=torch.from_numpy(matrix_DM * math.sqrt(self._max_n_features / 2)))
        return self._device

    @property
    def n_components(self) -> int:
        """Outputs; setting it draws a simulated matrix anew."""
        return self._n_components

    @n_components.setter
    def n_components(self, value: int) -> None:
        self._n_components = _positive("n_components", value)
        self._forget_matrix()

    @property
    def max_n_features(self) -> int:
        """Most features of a vector: rows of the simulated matrix, or mirrors of the OPU."""
        return self._max_n_features if self._simulated else self.device.num_mirrors

    @max_n_features.setter
    def max_n_features(self, value: int) -> None:
        if not self._simulated:
            raise ConfigError("max_n_features is the OPU's number of mirrors; it can be set if simulated=True")
        self._max_n_features = _positive("max_n_features", value)
        self._forget_matrix()

    @property
    def max_n_components(self) -> int:
        """Most outputs: the camera's pixels."""
        return self.device.shape_cam[0] * self.device.shape_cam[1]

    @property
    def rescale(self) -> OutputRescaling:
        """Scale of `linear_transform`; may be set by name."""
        return self._rescale

    @rescale.setter
    def rescale(self, value: OutputRescaling | str) -> None:
        names = {member.name: member for member in OutputRescaling}
        chosen = names.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(chosen, OutputRescaling):
            raise ConfigError(f"rescale must be one of {', '.join(names)}, got {value!r}")
        self._rescale = chosen

    @property
    def config(self) -> dict[str, object]:
        """Name and shape of the OPU and the seed, as plain values."""
        return {"name": self.device.opu_id, "input": {"shape": self.device.shape_dmd}, "seed": self._seed}

    def version(self, devices: bool = False) -> str:
        """Name and version of the software that is used in place of lightonml."""
        from importlib.metadata import version

        return f"odfa {version('odfa')}, in place of lightonml" + (f"\n{self.device.opu_id}" if devices else "")

    def open(self) -> None:
        """Claim the OPU, if there is one yet; projections are refused before."""
        if self._device is not None:
            self._device.open()
        self._active = True

    def close(self) -> None:
        """Release the OPU, so that others can claim it."""
        if self._device is not None:
            self._device.close()
        self._active = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def fit1d(
        self,
        X: Data | None = None,
        n_features: int | None = None,
        packed: bool = False,
        online: bool = False,
        **override: object,
    ) -> None:
        """Set the length of vectors, from an example or by number.

        Raises:
            ConfigError: the example is not binary or not 1-D, or too long.
        """
        self._fit(X, n_features, packed=packed, online=online, is_2d=False, override=override)

    def fit2d(
        self,
        X: Data | None = None,
        n_features: tuple[int, int] | None = None,
        packed: bool = False,
        online: bool = False,
        **override: object,
    ) -> None:
        """Set the shape of images, from an example or by numbers (needed if they are packed).

        Raises:
            ConfigError: the example is not binary or not 2-D, or too large.
        """
        self._fit(X, n_features, packed=packed, online=online, is_2d=True, override=override)

    def transform(self, X: Data, encoder_cls: Any = NoEncoding, decoder_cls: Any = NoDecoding) -> Any:
        """|R x|^2 of one vector or a batch; tensor in, tensor out, otherwise a `ContextArray`.

        float32 if simulated, the camera's counts on an OPU.

        Raises:
            ConfigError: not fitted, another shape, or values that are not bits. Disconnected: the OPU is closed.
        """
        # on an OPU back to the camera's integers: scripts of that library expect its uint8 counts
        encoder = _made(encoder_cls)
        bits_ND, lead = self._ready().bits(encoder.transform(X))
        values_NM, context = self._measure(bits_ND, Intensity())
        if self._simulated:
            values_NM = (2 / self._max_n_features) * values_NM
        else:
            values_NM = (values_NM * self.device.counts_per_intensity(bits_ND.shape[1], "blocked")).round()
            values_NM = values_NM.to(torch.uint8 if self.device.full_scale < 256 else torch.int32)
        return self._handed_back(values_NM, lead, context, X, encoder, decoder_cls)

    def linear_transform(self, X: Data, encoder_cls: Any = NoEncoding, decoder_cls: Any = NoDecoding) -> Any:
        """Re(R x), by holography, scaled as `rescale` says.

        Raises:
            ConfigError: as `transform`; and for packed input, as in the old library.
        """
        traits = self._ready()
        if traits.packed:
            raise ConfigError("linear_transform takes no packed input; unpack it with numpy.unpackbits")
        encoder = _made(encoder_cls)
        bits_ND, lead = traits.bits(encoder.transform(X))
        values_NM, context = self._measure(bits_ND, demodulator_for(self.device))
        features = self._max_n_features if self._simulated else traits.n_features
        real_NM = math.sqrt(2 / features) * (values_NM.real if values_NM.is_complex() else values_NM)
        output = self._handed_back(real_NM, lead, context, X, encoder, decoder_cls)
        if self._rescale is OutputRescaling.variance:
            return output / math.sqrt(traits.n_features)
        return output / math.sqrt(self._n_components) if self._rescale is OutputRescaling.norm else output

    def fit_transform1d(self, X: Data, packed: bool = False, **override: object) -> Any:
        """`fit1d` on X, then `transform` of X."""
        self.fit1d(X, None, packed, False, **override)
        return self.transform(X)

    def fit_transform2d(
        self, X: Data, packed: bool = False, n_2d_features: tuple[int, int] | None = None, **override: object
    ) -> Any:
        """`fit2d` on X, then `transform` of X."""
        self.fit2d(X, n_2d_features, packed, False, **override)
        return self.transform(X)

    def _fit(
        self,
        values: Data | None,
        n_features: int | tuple[int, int] | None,
        *,
        packed: bool,
        online: bool,
        is_2d: bool,
        override: dict[str, object],
    ) -> None:
        if override:
            warnings.warn(f"settings without effect here: {', '.join(sorted(override))}", stacklevel=3)
        traits = traits_of(values, n_features, packed=packed, online=online, is_2d=is_2d)
        if traits.n_features > self.max_n_features:
            raise ConfigError(f"{traits.n_features} features, at most {self.max_n_features}: raise max_n_features")
        self._traits = traits

    def _ready(self) -> Traits:
        if self._traits is None:
            raise ConfigError("call fit1d or fit2d before transform")
        if not self._active:
            raise Disconnected('the OPU is closed; use opu.open() or "with opu:"')
        return self._traits

    def _measure(self, bits_ND: Tensor, demodulator: AbstractDemodulator) -> tuple[Tensor, Context]:
        """Field or intensity (N, M) of patterns, and how it was taken."""
        if self._simulated and bits_ND.shape[1] < self._max_n_features:  # the first rows of the matrix
            bits_ND = torch.nn.functional.pad(bits_ND, (0, self._max_n_features - bits_ND.shape[1]))
        path = LightPath(self.device, demodulator, bits_ND.shape[1], self._n_components)
        roi = path.roi
        start, parts = datetime.now(UTC), []
        for chunk_nD in torch.split(bits_ND, 1 if self._ready().online else _VECTORS_AT_A_TIME):
            single = Frames(bits_NFD=chunk_nD[:, None], gain_NF=torch.ones(len(chunk_nD), 1), encoder="lightonml")
            parts.append(path.field(single))
        context = Context(
            exposure_us=round(1e6 * self.device.exposure_s),
            frametime_us=round(1e6 * self.device.frame_s(roi)),
            output_roi=((0, 0), (roi[1], roi[0])),
            start=start,
            end=datetime.now(UTC),
            n_ones=round(float(bits_ND.sum()) / len(bits_ND)),
        )
        return torch.cat(parts), context

    def _handed_back(
        self, values_NM: Tensor, lead: tuple[int, ...], context: Context, given: Data, encoder: Any, decoder_cls: Any
    ) -> Any:
        output: Any = ContextArray(values_NM.numpy().reshape(*lead, self._n_components), context)
        params = encoder.get_params() if hasattr(encoder, "get_params") and inspect.isclass(decoder_cls) else {}
        decoder: Any = decoder_cls(**params) if inspect.isclass(decoder_cls) and params else _made(decoder_cls)
        output = decoder.transform(output)
        return torch.from_numpy(np.array(output)) if isinstance(given, Tensor) else output

    def _forget_matrix(self) -> None:
        if self._simulated:
            self._device = None

    def __getstate__(self) -> dict[str, object]:
        if self._simulated:
            return {**vars(self), "_device": None}  # seed and shape rebuild the matrix
        return dict(vars(self))


def simulated_matrix(n_features: int, n_components: int, seed: int) -> np.ndarray:
    """R (n_features, n_components) of the old simulator: NumPy's RandomState(seed), real part first, scale 1 / sqrt(n).

    Both parts are rounded to float32 as there.
    """
    generator = np.random.RandomState(seed)
    shape, scale = (n_features, n_components), 1 / math.sqrt(n_features)
    real, imag = (generator.normal(0.0, scale, shape).astype(np.float32) for _ in range(2))
    matrix: np.ndarray = real + 1j * imag
    return matrix


def _made(kind: Any) -> Any:
    return kind() if inspect.isclass(kind) else kind


def _positive(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{name} must be a positive integer, got {value!r}")
    return int(value)
