"""Stages 2 to 4 behind one interface: a fixed linear map p_NM = e_ND B_DM, named by an identity."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from odfa.errors import ConfigError, NonFinite
from odfa.flow import Entries, Light, Share
from odfa.project.rows import SAFE, project_scaled
from odfa.saved import State, check_state
from odfa.settings import Settings

Dashes = str | tuple[int, tuple[int, ...]]
_kept: ContextVar[list[Tensor] | None] = ContextVar("sizes that somebody else looks at", default=None)


@contextmanager
def keeping_sizes() -> Iterator[list[Tensor]]:
    """Inside, projecting rows on an accelerator does not wait for it: the size of their largest entry goes into the
    list that this gives, and whoever holds the list finds out whether it is finite."""
    sizes: list[Tensor] = []
    before = _kept.set(sizes)
    try:
        yield sizes
    finally:
        _kept.reset(before)


class AbstractProjection(ABC):
    """A fixed linear map whose entries have mean 0 and variance 1 (identity projections aside).

    A projection is made without a shape and given one by `shaped`, because widths are known only once the model has
    run. Outputs are *prefix-stable*: the first columns of a wider one equal those of a narrower one of the same key.
    """

    num_inputs: int | None = None
    num_outputs: int | None = None
    isometric: bool = False
    """True if |p| = |e| already (identity), so that feedback must not divide by sqrt(K)."""

    @abstractmethod
    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        """The same projection with this shape; shares OPUs and random state with `self`.

        Raises:
            Incompatible: the OPU behind the projection cannot serve this shape.
        """

    @property
    @abstractmethod
    def identity(self) -> str:
        """Names the map up to its number of outputs; a checkpoint with another identity is refused."""

    @abstractmethod
    def _project(self, e_ND: Tensor) -> Tensor:
        """p_NM for rows of the right width."""

    def project(self, e_ND: Tensor) -> Tensor:
        """Project rows: p_NM = e_ND B_DM, in the dtype of `e_ND`; half precisions are computed in float32 unless the
        device reads them as they are (`reads_half`).

        Projections that take int8 rows of -1, 0 and 1 answer them in float32.

        Raises:
            ConfigError: the projection has no shape yet, or the rows are no tensor, have another width or an
                unsupported dtype.
            NonFinite: `e_ND` contains NaN or infinity.
        """
        if self.num_inputs is None:
            raise ConfigError("this projection has no shape yet; use projection.shaped(num_inputs, num_outputs) first")
        if not isinstance(e_ND, Tensor):
            raise ConfigError(
                f"expected error rows in a tensor, got {type(e_ND).__name__}; write "
                "project(torch.as_tensor(rows, dtype=torch.float32))"
            )
        if e_ND.ndim != 2 or e_ND.shape[1] != self.num_inputs:
            raise ConfigError(f"expected error rows of shape (N, {self.num_inputs}), got {tuple(e_ND.shape)}")
        if not self._takes(e_ND.dtype):
            raise ConfigError(f"{self.identity} does not take {e_ND.dtype}, expected floating-point rows")
        # One pass finds the largest entry and anything that is not finite: NaN propagates through minimum and maximum.
        # Reading it waits for a GPU, once a call, instead of gradients that are silently NaN; kept, it is read later.
        real = torch.view_as_real(e_ND) if e_ND.is_complex() else e_ND
        size = torch.stack(real.aminmax()).abs().max() if e_ND.numel() else torch.zeros(())
        kept, largest = _kept.get(), None
        if kept is not None and real.is_floating_point() and size.device.type not in ("cpu", "meta"):
            kept.append(size)
        else:
            largest = 0.0 if size.is_meta else size.item()  # the planner's tensors have shapes only
            if not math.isfinite(largest):
                raise NonFinite(
                    "the output error contains NaN or infinity; lower the learning rate or look at the batch"
                )
        half = e_ND.dtype in (torch.float16, torch.bfloat16)
        read = self.reads_half(e_ND.dtype, e_ND.device) and (largest is None or largest <= SAFE)
        if half and not read:  # sums of D products would overflow or lose their digits
            return project_scaled(e_ND.float(), largest, self._project).to(e_ND.dtype)
        return project_scaled(e_ND, largest, self._project)

    def project_entries(self, entries: Entries) -> Tensor:
        """Project a code of a few entries: p_NM = sum_F gain_NF B[index_NF], `project(entries.values())` to rounding.

        Raises:
            ConfigError: the projection has no shape yet, or the code another width.
        """
        if entries.num_inputs != self.num_inputs:
            raise ConfigError(f"expected a code of {self.num_inputs} inputs, got one of {entries.num_inputs}")
        return self._project_entries(entries)

    def _project_entries(self, entries: Entries) -> Tensor:
        return self.project(entries.values())

    def reads_half(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether rows of this half precision are projected on this device as they are, with sums in float32 all the
        same; otherwise they are computed in float32."""
        return False

    def _takes(self, dtype: torch.dtype) -> bool:
        return dtype.is_floating_point

    def matrix(self) -> Tensor:
        """B_DM in float32, of projections that know their matrix.

        Raises:
            ConfigError: the projection cannot expose its matrix.
        """
        raise ConfigError(f"{self.identity} does not expose its matrix; measure it by projecting one-hot rows")

    @property
    def is_matrix(self) -> bool:
        """Whether `project` is the product with `matrix()` and nothing else: no encoder before it, no light."""
        return type(self).matrix is not AbstractProjection.matrix

    def cost(self, num_vectors: int) -> Light:
        """Light that projecting `num_vectors` non-zero rows takes."""
        return Light()

    @property
    def spent(self) -> Light:
        """Light that this projection has spent so far; none for digital ones."""
        return Light()

    @property
    def diagnostics(self) -> dict[str, float]:
        """Figures of the last call worth logging: density of non-zeros, saturated fraction, …"""
        return {}

    @property
    def diagnostics_there(self) -> Mapping[str, float | Share]:
        """The same, counts on an accelerator as they are: a step does not wait for them."""
        return self.diagnostics

    def close(self) -> None:  # noqa: B027 - digital projections hold nothing
        """Close the OPU, if there is one; the next projection opens it again."""

    def state_dict(self) -> State:
        """Random state and counters as plain numbers."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such a projection.
        """
        check_state(state, {}, "projection")


@dataclass(frozen=True, kw_only=True)
class ProjectionSettings(Settings, ABC, room="odfa.project", group="odfa.projections"):
    """Which projection carries the error to the blocks, and what before it makes patterns of the error."""

    dashes: ClassVar[Dashes] = "-"
    """Dashes of this projection's curves in figures, a `linestyle` of matplotlib."""

    @abstractmethod
    def build(self, run_seed: int) -> AbstractProjection:
        """The projection, without a shape and at the beginning of its random state.

        Args:
            run_seed: key of the run, from which the keys of an encoder's draws and of a simulation's noise follow;
                the matrix does not depend on it.

        Raises:
            ConfigError: no such projection can be made.
        """

    def tap(self, blocks: Sequence[str]) -> str:
        """Where in the network the error is read: "logits", or the name of a module, such as one of `blocks`."""
        return "logits"

    @property
    def recalibrates(self) -> bool:
        """Whether the matrix may be measured anew and change during a run."""
        return False

    def check(self, *, run_seed: int, num_inputs: int, num_outputs: int, widths: Sequence[int]) -> None:
        """Refuse, before anything is computed, shapes and stages that do not fit together.

        Args:
            run_seed: key of the run.
            num_inputs: width of the error at the tap.
            num_outputs: all outputs of the projection.
            widths: width of each block's signal.

        Raises:
            ConfigError: the projection cannot serve this shape; Incompatible: the OPU cannot.
        """

    @property
    @abstractmethod
    def label(self) -> str:
        """A word or two for axes and legends, such as "optical"."""

    @property
    @abstractmethod
    def electronic(self) -> str:
        """What of the learning is electronic, for a column of tables; begins with "all"."""
