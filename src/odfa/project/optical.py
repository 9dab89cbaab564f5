"""Projection by an OPU: the only file in which encoder, OPU and demodulator are joined.

Shape letters: `N` samples · `D` error width · `F` patterns per sample · `M` optical modes, two real outputs each.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from odfa import arguments
from odfa.demodulate import AbstractDemodulator, DemodulatorSettings, PhaseSteps, PhaseStepsSettings
from odfa.devices import memory_bytes
from odfa.encode import AbstractEncoder, EncoderSettings, StochasticSettings, Ternary
from odfa.errors import CheckpointError, Incompatible
from odfa.flow import Frames, Light, Share
from odfa.keys import mix
from odfa.opu import AbstractOpu, Calibration, OpuSettings, TwinSettings
from odfa.project.base import AbstractProjection, ProjectionSettings
from odfa.project.digital import build_encoder
from odfa.project.guard import Guard, Watch
from odfa.project.path import LightPath
from odfa.project.rows import check_shape, project_lit
from odfa.saved import State, check_state, word
from odfa.settings import require

_NOISE_KEY = 0x7EA1_0004
_PIXELS_AT_A_TIME = 2**24
"""Camera pixels held at once: 64 MB as float32."""
_MIRRORS_AT_A_TIME = 2**25
"""Entries of patterns held at once: 32 MB."""
_BYTES_A_PIXEL = 2**9
"""Memory of an accelerator for each camera pixel, and each entry of patterns, that is held at once there: a few percent
of it, and few looks at counts, for which it has to wait."""


class Optical(AbstractProjection):
    """p = sqrt(2) (Re E, Im E), E = t A the field behind a scattering medium A ~ CN(0, 1), t the encoded error.

    Outputs 2m and 2m + 1 are the two quadratures of mode m, so entries of B are N(0, 1) and a wider projection begins
    with the outputs of a narrower one.

    >>> Optical(Twin()).shaped(10, 3).project(torch.eye(10)).shape
    torch.Size([10, 3])
    """

    def __init__(
        self,
        opu: AbstractOpu,
        *,
        encoder: AbstractEncoder | None = None,
        demodulator: AbstractDemodulator | None = None,
        guard: Guard | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """Join the stages.

        Args:
            opu: the twin, a bench, any `AbstractOpu`.
            encoder: `Ternary()` unless given.
            demodulator: `PhaseSteps(4)` unless given.
            guard: looks at witness patterns while the projection is used, to correct, warn or stop (see `Guard`);
                None: the matrix is trusted.
            calibration: what was measured of this OPU (`odfa opu calibrate`): scales the field, holds the witness
                fields that the guard compares with (`Guard()` unless one is given), and the matrix if it was measured.

        Raises:
            ConfigError: an argument is of the wrong kind.
            Incompatible: the demodulator is not linear, or the encoder has no minus patterns.
            OpuError: the OPU does not state its abilities sensibly.
        """
        arguments.kind("opu", opu, AbstractOpu, "odfa.Optical(odfa.open_opu(name))")
        for key, value, kind, write in (
            ("encoder", encoder, AbstractEncoder, "encoder=odfa.Ternary()"),
            ("demodulator", demodulator, AbstractDemodulator, "demodulator=odfa.PhaseSteps()"),
            ("guard", guard, Guard, "guard=odfa.Guard()"),
            ("calibration", calibration, Calibration, "calibration=odfa.opu.Calibration.load(folder)"),
        ):
            if value is not None:
                arguments.kind(key, value, kind, write)
        opu.check_stated()
        self._opu, self._encoder, self._demodulator = opu, encoder or Ternary(), demodulator or PhaseSteps(4)
        if not self._demodulator.linear:
            raise Incompatible(
                f"{self._demodulator.name} is not linear and cannot carry an error; use OffAxis(), PhaseSteps() or "
                "Anchor()"
            )
        if not self._encoder.signed:
            raise Incompatible(
                f"{self._encoder.name} shows no minus patterns and cannot carry an error; use Ternary(), Sign() or "
                "BitPlanes()"
            )
        self._calibration = calibration
        self._path: LightPath | None = None
        self._guard = Guard() if guard is None and calibration is not None else guard
        # by width, and shared by the projections that `shaped` makes: those of one width see the same part of the
        # matrix, and must not calibrate it twice
        self._watches: dict[int, Watch] = {}
        self._diagnostics: dict[str, float | Share] = {}

    def __repr__(self) -> str:
        return self.identity

    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        """The projection with this shape, on the same OPU and encoder.

        Raises:
            Incompatible: the OPU lacks mirrors, pixels or the reference arm; found before the first frame.
            CalibrationError: the calibration is for another OPU, width, region or demodulator.
        """
        # a shallow copy: OPU, encoder and watches stay shared, for an instrument can be opened only once and draws
        # must not repeat
        check_shape(num_inputs, num_outputs)
        shaped = copy.copy(self)
        shaped.num_inputs, shaped.num_outputs, shaped._diagnostics = num_inputs, num_outputs, {}
        num_modes = -(-num_outputs // self._demodulator.quadratures)
        width = self._encoder.width(num_inputs)
        shaped._path = LightPath(self._opu, self._demodulator, width, num_modes)
        if self._calibration is not None:
            self._calibration.check_fits(
                opu_id=self._opu.opu_id,
                num_inputs=width,
                roi=shaped._path.roi,
                demodulator=self._demodulator.name,
            )
            self._opu.calibration_id = self._calibration.id
        return shaped

    @property
    def identity(self) -> str:
        """OPU (which names the medium), inputs, demodulator and encoder."""
        inputs = "" if self.num_inputs is None else f", inputs={self.num_inputs}"
        if self._calibration is not None:
            inputs += f", calibration={self._calibration.id}"
        return f"optical({self._opu.opu_id}{inputs}, {self._demodulator.name}, {self._encoder.name})"

    @property
    def _roi(self) -> tuple[int, int]:
        """Camera rows and columns that the outputs take; none without a shape."""
        return self._demodulator.roi(0, self._opu.view) if self._path is None else self._path.roi

    def _project(self, e_ND: Tensor) -> Tensor:
        assert self.num_outputs is not None
        return project_lit(e_ND, self.num_outputs, self._project_lit)

    def _project_lit(self, e_ND: Tensor) -> Tensor:
        # A chunk is as large as memory allows, and ends where the next look at the witnesses is due: phase and gain
        # that correct a vector are at most `Guard.every` vectors old, however large the batch.
        assert self._path is not None
        frames_per_sample = self._demodulator.exposures(self._encoder.patterns_per_sample)
        roi = self._roi
        pixels, mirrors = _at_a_time(e_ND.device)
        most = max(1, pixels // (frames_per_sample * roi[0] * roi[1]))
        most = max(1, min(most, mirrors // (self._encoder.patterns_per_sample * self._path.num_inputs)))
        density, saturated, p_nM, start = None, 0.0, [], 0
        while start < len(e_ND):
            e_nD = e_ND[start : start + min(most, self._before_next_look())]
            code = self._encoder.encode_part(e_nD if self._opu.on_device else e_nD.cpu(), start)
            start += len(e_nD)
            field_NM, capture = self._path.show(code, ops_useful=self._ops_useful(len(e_nD)))
            field_NM = field_NM if self._watch is None else self._watch.corrected(field_NM)
            p_nM.append(self._outputs(field_NM).to(e_ND))
            density = code.density_there if density is None else density + code.density_there
            saturated += capture.acquisition.saturated_fraction * (len(e_nD) / len(e_ND))
            if self._watch is not None:
                self._watch.advance(len(e_nD))
        assert density is not None  # there is a row
        self._diagnostics = {"density": density, "saturated_fraction": saturated}
        return torch.cat(p_nM)

    def _outputs(self, field_NM: Tensor) -> Tensor:
        values_NM = torch.view_as_real(field_NM).flatten(1) if field_NM.is_complex() else field_NM
        # the quadratures of CN(0, 1) have variance 1/2 each: sqrt(2) makes the entries of B N(0, 1)
        scale = 2**0.5 / (1.0 if self._calibration is None else self._calibration.gain)
        return scale * values_NM[:, : self.num_outputs]

    @property
    def is_matrix(self) -> bool:
        """False: rows are encoded, and light adds noise."""
        return False

    def matrix(self) -> Tensor:
        """B_DM as the calibration measured it.

        Raises:
            ConfigError: no calibration, or one without the matrix; measure it by projecting one-hot rows.
        """
        if self._calibration is None or self._calibration.matrix_DM is None or self.num_inputs is None:
            return super().matrix()
        return self._encoder.folded(self._outputs(self._calibration.matrix_DM).float(), self.num_inputs)

    @property
    def _watch(self) -> Watch | None:
        if self._guard is None or self._path is None:
            return None
        width = self._path.num_inputs
        if width not in self._watches:
            watch = self._watches[width] = self._guard.watch(width)
            if self._calibration is not None:
                watch.start_from(self._calibration.witness_WM, self._calibration.repeatability)
        return self._watches[width]

    def _before_next_look(self) -> int:
        """Vectors that may be projected now; looks at the witnesses when it is time."""
        if self._watch is None:
            return _PIXELS_AT_A_TIME
        if self._watch.due <= 0:
            self._watch.look(self._show)
        return self._watch.due

    def _show(self, patterns: Frames) -> Tensor:
        assert self._path is not None
        return self._path.show(patterns)[0]

    def _ops_useful(self, num_vectors: int) -> float:
        return 2.0 * (self.num_inputs or 0) * (self.num_outputs or 0) * num_vectors

    def cost(self, num_vectors: int) -> Light:
        """Light that `num_vectors` non-zero rows take in one call: 2 patterns x 4 phases = 8 frames each by default.

        With a guard the calibration at the beginning and the looks at the witnesses are included.
        """
        shared, exposures = self._demodulator.shared_frames, self._demodulator.exposures
        frames = num_vectors * exposures(self._encoder.patterns_per_sample) + shared
        if self._guard is not None and num_vectors:
            looks = 1 + -(-num_vectors // self._guard.every)
            frames += looks * (self._guard.num_witnesses * exposures(2) + shared)
        return self._opu.cost(frames, roi=self._roi) + Light(ops_useful=self._ops_useful(num_vectors))

    @property
    def spent(self) -> Light:
        """Light that the OPU has spent."""
        return self._opu.spent

    @property
    def diagnostics(self) -> dict[str, float]:
        """Of the last call: density of non-zeros in the codes, share of camera pixels at full scale; of the last look
        at the witnesses: correlation with the calibration, phase, gain."""
        return {name: float(value) for name, value in self.diagnostics_there.items()}

    @property
    def diagnostics_there(self) -> Mapping[str, float | Share]:
        """`diagnostics`, of which nothing has been waited for."""
        watched = {} if self._watch is None else self._watch.diagnostics
        return self._diagnostics | (watched if self._diagnostics else {})

    def close(self) -> None:
        """Close the OPU; the next projection opens it again."""
        self._opu.close()

    def _can_be_wide(self, width: str) -> bool:
        return width.isascii() and width.isdigit() and 0 < len(width) < 12 and 0 < int(width) <= self._opu.num_mirrors

    def state_dict(self) -> State:
        """Random state and counters of encoder and OPU, and the state of each watch by width."""
        watched = {str(width): watch.state_dict() for width, watch in self._watches.items()}
        return {"encoder": self._encoder.state_dict(), "opu": self._opu.state_dict(), "guard": watched}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such an encoder, OPU and guard.
        """
        check_state(state, {"encoder": {str: object}, "opu": {str: object}, "guard": {str: object}}, "projection")
        wide = next((width for width in state["guard"] if not self._can_be_wide(width)), None)
        if wide is not None:
            raise CheckpointError(f"the saved state does not fit: projection.guard: no projection is {word(wide)} wide")
        self._encoder.load_state_dict(state["encoder"])
        self._opu.load_state_dict(state["opu"])
        self._watches.clear()
        if self._guard is not None:
            for width, watched in state["guard"].items():
                self._watches[int(width)] = self._guard.watch(int(width))
                self._watches[int(width)].load_state_dict(watched)


def _at_a_time(device: torch.device) -> tuple[int, int]:
    """Camera pixels and entries of patterns to hold at once on a device; results do not depend on it."""
    more = (memory_bytes(device) or 0) // _BYTES_A_PIXEL
    return max(_PIXELS_AT_A_TIME, more), max(_MIRRORS_AT_A_TIME, more)


@dataclass(frozen=True, kw_only=True)
class OpticalSettings(ProjectionSettings, kind="optical"):
    """Through an OPU: an encoder makes patterns, the OPU shows them, a demodulator reads the field."""

    opu: OpuSettings = field(default_factory=lambda: TwinSettings(name="opu-2021"))
    """The OPU: a twin, or an instrument that a package registers (`odfa opu list`)."""
    encoder: EncoderSettings = field(default_factory=StochasticSettings)
    """How errors become patterns."""
    demodulator: DemodulatorSettings = field(default_factory=PhaseStepsSettings)
    """How counts become a field."""
    guard: Guard | None = field(default_factory=Guard)
    """What looks at witness patterns, which tell how far the matrix has drifted; none: it is trusted."""
    calibration: Path | None = None
    """Folder that `odfa opu calibrate` wrote for this OPU, width, region and demodulator; none: the run calibrates its
    witnesses itself."""

    def __post_init__(self) -> None:
        guarded = self.guard is not None or self.calibration is None
        require(guarded, "guard", "a guard with a calibration, whose witnesses it compares with", None)

    def unread(self) -> Mapping[str, str]:
        """What the OPU does not need for what the demodulator asks of the reference arm."""
        return {f"opu.{path}": why for path, why in self.opu.unread_by(self.demodulator.build().arm).items()}

    def build(self, run_seed: int) -> Optical:
        """The light path; encoder and noise are keyed by the run.

        Raises:
            ConfigError: no OPU of this name.
            CalibrationError: the calibration is missing, corrupt or changed.
            Incompatible: the encoder cannot carry an error.
        """
        return Optical(
            self.opu.build(mix(_NOISE_KEY, run_seed)),
            encoder=build_encoder(self.encoder, run_seed),
            demodulator=self.demodulator.build(),
            guard=self.guard,
            calibration=None if self.calibration is None else Calibration.load(self.calibration),
        )

    @property
    def recalibrates(self) -> bool:
        """True if the guard calibrates anew when the matrix is lost, instead of stopping."""
        return self.guard is not None and self.guard.when_lost == "recalibrate"

    def check(self, *, run_seed: int, num_inputs: int, num_outputs: int, widths: Sequence[int]) -> None:
        """Refuse what the OPU or the calibration cannot serve; no frame is shown.

        Raises:
            Incompatible: the OPU lacks mirrors, pixels or the reference arm.
            CalibrationError: the calibration is for another OPU, width, region or demodulator.
        """
        self.build(run_seed).shaped(num_inputs, num_outputs)

    @property
    def label(self) -> str:
        """The word "optical"."""
        return "optical"

    @property
    def electronic(self) -> str:
        """All of the learning but the projection; what its encoder computes before it makes patterns is named."""
        before = f", of {self.encoder.electronic}" if self.encoder.electronic else ""
        return f"all but the projection, which is optical{before}"
