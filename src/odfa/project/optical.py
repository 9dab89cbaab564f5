"""The light path on one screen: the only place where encoder, device and demodulator meet.

Shape letters: `N` samples · `D` error width · `F` patterns per sample · `M` optical modes, two real outputs each.
"""

import copy
from typing import Any, Self

import torch
from torch import Tensor

from odfa.demodulate import AbstractDemodulator, PhaseSteps
from odfa.device import AbstractDevice
from odfa.encode import AbstractEncoder, Ternary
from odfa.flow import Field, Light
from odfa.project.base import AbstractProjection
from odfa.project.rows import check_shape, project_lit

_PIXELS_AT_A_TIME = 2**24
"""Camera pixels held at once: 64 MB as float32."""


class Optical(AbstractProjection):
    """p = sqrt(2) (Re E, Im E), E = t A the field behind a scattering medium A ~ CN(0, 1), t the encoded error.

    Outputs 2m and 2m + 1 are the two quadratures of mode m, so entries of B are N(0, 1) and a wider projection begins
    with the outputs of a narrower one.

    >>> Optical(Twin()).shaped(10, 3).project(torch.eye(10)).shape
    torch.Size([10, 3])
    """

    def __init__(
        self,
        device: AbstractDevice,
        *,
        encoder: AbstractEncoder | None = None,
        demodulator: AbstractDemodulator | None = None,
    ) -> None:
        """Join the stages; `encoder` is `Ternary()` and `demodulator` `PhaseSteps(4)` unless given."""
        self._device, self._encoder, self._demodulator = device, encoder or Ternary(), demodulator or PhaseSteps(4)
        self._diagnostics: dict[str, float] = {}

    def __repr__(self) -> str:
        return self.identity

    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        """The projection with this shape, on the same device and encoder.

        Raises:
            Incompatible: the device lacks mirrors, modes or the phase stepper; found before the first frame.
        """
        check_shape(num_inputs, num_outputs)
        shaped = copy.copy(self)
        shaped.num_inputs, shaped.num_outputs, shaped._diagnostics = num_inputs, num_outputs, {}
        self._device.require(
            num_inputs=num_inputs, num_modes=shaped._num_modes, phase_steps=self._demodulator.needs_phase_steps
        )
        return shaped

    @property
    def identity(self) -> str:
        """Device (which names the medium), inputs, read-out and encoder."""
        inputs = "" if self.num_inputs is None else f", inputs={self.num_inputs}"
        return f"optical({self._device.device_id}{inputs}, {self._demodulator.name}, {self._encoder.name})"

    @property
    def _num_modes(self) -> int:
        return -(-(self.num_outputs or 0) // 2)

    def _project(self, e_ND: Tensor) -> Tensor:
        assert self.num_outputs is not None
        return project_lit(e_ND, self.num_outputs, self._project_lit)

    def _project_lit(self, e_ND: Tensor) -> Tensor:
        frames_per_sample = self._demodulator.exposures(self._encoder.patterns_per_sample)
        rows = max(1, _PIXELS_AT_A_TIME // (frames_per_sample * self._num_modes))
        totals = {"density": 0.0, "saturated_fraction": 0.0}
        p_nM = []
        for start in range(0, len(e_ND), rows):
            e_nD = e_ND[start : start + rows]
            frames = self._demodulator.expand(self._encoder.encode(e_nD.cpu()))
            capture = self._device.run(frames, num_modes=self._num_modes, ops_useful=self._ops_useful(len(e_nD)))
            field = self._demodulator.demodulate(capture, frames)
            p_nM.append(self._quadratures(field).to(e_ND))
            totals["density"] += frames.density * len(e_nD)
            totals["saturated_fraction"] += capture.acquisition.saturated_fraction * len(e_nD)
        self._diagnostics = {name: total / len(e_ND) for name, total in totals.items()}
        return torch.cat(p_nM)

    def _quadratures(self, field: Field) -> Tensor:
        return 2**0.5 * torch.view_as_real(field.field_NM).flatten(1)[:, : self.num_outputs]

    def _ops_useful(self, num_vectors: int) -> float:
        return 2.0 * (self.num_inputs or 0) * (self.num_outputs or 0) * num_vectors

    def cost(self, num_vectors: int) -> Light:
        """Light that `num_vectors` non-zero rows take: 2 patterns x 4 phases = 8 frames each by default."""
        frames = num_vectors * self._demodulator.exposures(self._encoder.patterns_per_sample)
        return self._device.cost(frames, num_modes=self._num_modes) + Light(ops_useful=self._ops_useful(num_vectors))

    @property
    def spent(self) -> Light:
        """Light that the device has spent."""
        return self._device.spent

    @property
    def diagnostics(self) -> dict[str, float]:
        """Of the last call: density of non-zeros in the codes, share of camera pixels at full scale."""
        return dict(self._diagnostics)

    def state_dict(self) -> dict[str, Any]:
        """Random state and counters of encoder and device."""
        return {"encoder": self._encoder.state_dict(), "device": self._device.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._encoder.load_state_dict(state["encoder"])
        self._device.load_state_dict(state["device"])
