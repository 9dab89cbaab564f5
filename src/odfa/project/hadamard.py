"""A structured projection at O(M log N): as Gaussian as a stored matrix, without the matrix."""

import copy
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from odfa.errors import ConfigError
from odfa.project.base import AbstractProjection
from odfa.project.digital import DigitalSettings
from odfa.project.rows import check_seed, check_shape, project_scaled
from odfa.project.ternary_rows import require_ternary
from odfa.saved import State
from odfa.structured import Structured, triton_runs_on

Precision = Literal["float32", "int16"]
_DENSE_INPUTS = 32
"""Up to so many inputs a dense product is faster, or little slower (benchmarks/crossover.py: crossover at 20 to 60)."""
_DENSE_INPUTS_BY_TRITON = 32
"""The same beside Triton's kernels; not measured yet, benchmarks/accelerator.py times both."""


class Hadamard(AbstractProjection):
    """p_NM = e_ND B_DM with B = [D4 H S D3_b H D2_b H D1 / N]_b: entries N(0, 1) and the spectrum of a Gaussian matrix.

    H: Walsh-Hadamard matrix of N >= D points, D: random signs, S: singular values of a Gaussian matrix; named by (seed,
    num_inputs), prefix-stable. It has 3 N random bits a block of N outputs where a Gaussian matrix has D N numbers, and
    does about 2 log2 N additions an output instead of D multiplications. Runs on the CPU by numba, on accelerators by
    Triton where these are installed, and by torch elsewhere: the same matrix. Up to 32 inputs the matrix is stored and
    multiplied (4 D M bytes).

    >>> Hadamard(seed=0).shaped(1000, 3).project(torch.eye(1000)).shape
    torch.Size([1000, 3])

    Source: Ailon & Chazelle, STOC 2006 (signs and one H); Yu et al., arXiv 1610.09072 (several); S is ours.
    """

    def __init__(self, seed: int = 0, *, precision: Precision = "float32") -> None:
        """Name the matrix.

        Args:
            seed: key of the matrix.
            precision: "float32" for any rows; "int16" for ternary rows only (with an encoder before it, or int8 rows of
                -1, 0, 1): fixed point, about 0.5 % rms error, up to twice as fast. CPU and numba only.

        Raises:
            ConfigError: `seed` is not an integer, or there is no such precision.
        """
        check_seed(seed)
        if precision not in get_args(Precision):
            raise ConfigError(f"precision must be float32 or int16, got {precision!r}")
        self._seed, self._precision = seed, precision
        self._structure: Structured | None = None
        self._dense_DM: Tensor | None = None

    def __repr__(self) -> str:
        return self.identity

    def __getstate__(self) -> State:
        return {**vars(self), "_dense_DM": None}

    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        """The projection of this key with `num_inputs` rows and `num_outputs` columns.

        Raises:
            ConfigError: a width is not a positive integer, or there are more than 2^24 inputs.
        """
        check_shape(num_inputs, num_outputs)
        shaped = copy.copy(self)
        shaped.num_inputs, shaped.num_outputs, shaped._dense_DM = num_inputs, num_outputs, None
        if self._structure is None or self.num_inputs != num_inputs:
            shaped._structure = Structured(self._seed, num_inputs)
        return shaped

    @property
    def identity(self) -> str:
        """Key, precision, inputs, and a hash of the keyed numbers; a machine that draws others has another identity."""
        name = f"hadamard(seed={self._seed}" + (f", {self._precision}" if self._precision != "float32" else "")
        if self._structure is None:
            return f"{name})"
        return f"{name}, inputs={self.num_inputs}, sha={self._structure.fingerprint})"

    @property
    def state_bytes(self) -> int:
        """Bytes that the matrix takes in memory."""
        structure, num_outputs = self._shape()
        return structure.state_bytes(num_outputs)

    def matrix(self) -> Tensor:
        """B_DM in float32, 4 D M bytes: for tests.

        Raises:
            ConfigError: the projection has no shape yet.
        """
        # one-hot rows in parts: each row takes a whole vector of N points, so D of them at once may not fit
        structure, num_outputs = self._shape()
        num_inputs = structure.keyed.num_inputs
        step = max(1, 2**24 // structure.keyed.points)
        parts = []
        for start in range(0, num_inputs, step):
            one_hot_nD = torch.zeros(min(step, num_inputs - start), num_inputs, dtype=torch.float64)
            one_hot_nD[torch.arange(len(one_hot_nD)), start + torch.arange(len(one_hot_nD))] = 1
            parts.append(structure.portable(one_hot_nD, num_outputs).float())
        return torch.cat(parts)

    def adjoint(self, p_NM: Tensor) -> Tensor:
        """e_ND = p_NM B^T, by torch: <B e, p> = <e, B^T p>.

        Raises:
            ConfigError: no shape yet, or rows of another width.
        """
        structure, num_outputs = self._shape()
        if p_NM.ndim != 2 or p_NM.shape[1] != num_outputs or p_NM.dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"expected float rows of shape (N, {num_outputs}), got {p_NM.dtype} {tuple(p_NM.shape)}")
        largest = p_NM.abs().max().item() if p_NM.numel() else 0
        return project_scaled(p_NM, largest, structure.adjoint)

    def project_complex(self, e_ND: Tensor) -> Tensor:
        """Complex modes A e, A_dm = (B_d,2m + i B_d,2m+1) / sqrt(2) ~ CN(0, 1), for real or complex rows: (N, M / 2).

        Raises:
            ConfigError: no shape yet, an odd number of outputs, or rows of another width.
            NonFinite: NaN or infinity.
        """
        if self.num_outputs is None or self.num_outputs % 2:
            raise ConfigError(f"complex modes take two outputs each, got num_outputs={self.num_outputs}")
        if e_ND.is_complex():
            return self.project_complex(e_ND.real) + 1j * self.project_complex(e_ND.imag)
        p_NM = self.project(e_ND)
        return torch.view_as_complex(p_NM.view(len(p_NM), -1, 2)).mul(0.5**0.5)

    def _takes(self, dtype: torch.dtype) -> bool:
        return dtype.is_floating_point or dtype.is_complex or dtype == torch.int8

    def _project(self, e_ND: Tensor) -> Tensor:
        structure, num_outputs = self._shape()
        if e_ND.is_complex():
            return torch.complex(self._project(e_ND.real.contiguous()), self._project(e_ND.imag.contiguous()))
        if self._precision == "int16":
            t_ND, scale_N = require_ternary(e_ND, "precision='int16'")
            return structure.project_ternary(t_ND, num_outputs, scale_N=scale_N)[0]
        on_triton = triton_runs_on(e_ND.device) and e_ND.dtype != torch.float64
        if structure.keyed.num_inputs <= (_DENSE_INPUTS_BY_TRITON if on_triton else _DENSE_INPUTS):
            wide_ND = e_ND if e_ND.dtype == torch.float64 else e_ND.float()
            p_NM = wide_ND @ self._dense(wide_ND)
            return p_NM.to(e_ND.dtype) if e_ND.dtype.is_floating_point else p_NM
        e_ND = e_ND.float() if e_ND.dtype == torch.int8 and not on_triton else e_ND
        return structure.project(e_ND, num_outputs)

    def reads_half(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Where Triton's kernels compute."""
        return triton_runs_on(device)

    def _dense(self, like: Tensor) -> Tensor:
        if self._dense_DM is None or (self._dense_DM.dtype, self._dense_DM.device) != (like.dtype, like.device):
            structure, num_outputs = self._shape()
            one_hot_DD = torch.eye(structure.keyed.num_inputs, dtype=torch.float64)
            self._dense_DM = structure.portable(one_hot_DD, num_outputs).to(like.dtype).to(like.device)
        return self._dense_DM

    def _shape(self) -> tuple[Structured, int]:
        if self._structure is None or self.num_outputs is None:
            raise ConfigError("this projection has no shape yet; use projection.shaped(num_inputs, num_outputs) first")
        return self._structure, self.num_outputs


@dataclass(frozen=True, kw_only=True)
class HadamardSettings(DigitalSettings, kind="hadamard"):
    """A structured matrix with the statistics of a Gaussian one, at O(M log N), nothing stored."""

    def bare(self) -> Hadamard:
        """`Hadamard(seed)` with this key, without a shape."""
        return Hadamard(seed=self.seed)
