"""What was measured of an OPU at one moment, with an id that records name and checks compare.

Shape letters: `W` witnesses · `D` inputs · `M` optical modes.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from odfa.errors import CalibrationError

_TENSORS = ("witness_WM", "matrix_DM")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured of one OPU at one moment, for one number of inputs, region and demodulator."""

    opu_id: str
    """The OPU that was measured."""
    demodulator: str
    """Name of the demodulator that read the fields."""
    num_inputs: int
    """Width of the errors that it is for."""
    roi: tuple[int, int]
    """Camera rows and columns read."""
    created_s: float
    """When, in seconds since 1970 (UTC)."""
    dark_counts: float
    """Mean count with all mirrors dark."""
    noise_counts: float
    """Standard deviation of a pixel's counts from frame to frame, half of the mirrors lit."""
    gain: float
    """Measured rms field of a mode per square root of lit inputs; 1 for an OPU that states its counts rightly."""
    linearity_error: float
    """Relative error of A(x + y) against A x + A y for patterns that share no mirror."""
    repeatability: float
    """Correlation of the witness fields shown twice."""
    paired: bool
    """Frames came back in the order in which they were shown."""
    counts_per_intensity: float
    """As the OPU states it, for a twin to be built from this record."""
    reference_amplitude: float
    """Amplitude of the reference as the OPU states it, for the same use."""
    full_scale: int
    """Largest count of the camera."""
    exposure_s: float
    """Exposure of the camera in seconds while it was measured."""
    carrier_cpp: tuple[float, float] | None = None
    """Fringes that were found, cycles per pixel; None without a tilted arm."""
    pupil_cpp: float | None = None
    """Radius of the signal's spectrum that was found, cycles per pixel."""
    witness_WM: Tensor
    """Fields of the witness patterns of `odfa.project.guard`."""
    matrix_DM: Tensor | None = None
    """Transmission matrix, complex; None if it was not measured."""

    @property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the contents."""
        sha = hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode())
        for name in _TENSORS:
            tensor = getattr(self, name)
            if tensor is not None:
                sha.update(_bytes(tensor))
        return sha.hexdigest()[:16]

    def check_fits(self, *, opu_id: str, num_inputs: int, roi: tuple[int, int], demodulator: str) -> None:
        """Refuse every use but the one that was measured.

        Raises:
            CalibrationError: another OPU, width, region or demodulator.
        """
        pairs = {
            "opu": (self.opu_id, opu_id),
            "inputs": (self.num_inputs, num_inputs),
            "region": (self.roi, roi),
            "demodulator": (self.demodulator, demodulator),
        }
        for name, (ours, theirs) in pairs.items():
            if ours != theirs:
                raise CalibrationError(
                    f"calibration {self.id} is for {name} {ours}, this is {theirs}; calibrate this one: "
                    "odfa opu calibrate NAME"
                )

    def check_age(self, max_age_s: float) -> None:
        """Refuse what was measured too long ago.

        Raises:
            CalibrationError: older than `max_age_s`, or from the future.
        """
        age_s = time.time() - self.created_s
        if not -60 <= age_s <= max_age_s:  # a minute: two computers' clocks differ by as much
            raise CalibrationError(
                f"calibration {self.id} is {age_s / 3600:.1f} hours old, at most {max_age_s / 3600:.1f} allowed; "
                "calibrate again"
            )

    def save(self, folder: Path | str) -> Path:
        """Write calibration.json and tensors.safetensors into a new `folder`, all or nothing.

        Raises:
            CalibrationError: the folder exists or cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        # written beside its place and renamed in one step: a reader never sees half a calibration, and a crash leaves
        # none that looks whole
        path = Path(folder)
        if path.exists():
            raise CalibrationError(f"{path} exists already; name another folder for the calibration")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=".calibration-"))
            try:
                tensors = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
                save_file({name: _real(tensor) for name, tensor in tensors.items()}, scratch / "tensors.safetensors")
                text = json.dumps({**self._plain(), "id": self.id}, indent=1)
                (scratch / "calibration.json").write_text(text, encoding="utf-8")
                os.replace(scratch, path)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
        except (OSError, SafetensorError) as error:
            why = getattr(error, "strerror", None) or error
            raise CalibrationError(f"cannot write the calibration to {path}: {why}; choose another place") from error
        return path

    @classmethod
    def load(cls, folder: Path | str) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            CalibrationError: there is none, or it is not what was written (its id does not match).
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(folder)
        try:
            values = json.loads((path / "calibration.json").read_text(encoding="utf-8"))
            tensors = load_file(path / "tensors.safetensors")
            stated = values.pop("id")
            for name in ("roi", "carrier_cpp"):
                values[name] = None if values[name] is None else tuple(values[name])
            kinds = values.pop("tensors")
            values |= {name: _typed(tensors[name], kinds[name]) for name in kinds}
            found = cls(**values)
        except FileNotFoundError as error:
            raise CalibrationError(f"there is no calibration in {path}; make one: odfa opu calibrate NAME") from error
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CalibrationError(f"the calibration in {path} is corrupt ({error}); calibrate again") from error
        if found.id != stated:  # a gain edited by hand would rescale all feedback without a word
            raise CalibrationError(
                f"the calibration in {path} was changed: its id is {stated}, its contents {found.id}"
            )
        return found

    def _plain(self) -> dict[str, object]:
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in _TENSORS}
        kinds = {name: str(getattr(self, name).dtype) for name in _TENSORS if getattr(self, name) is not None}
        return {**plain, "tensors": kinds}

    def figures(self) -> dict[str, object]:
        """All fields but the tensors, by name."""
        return {name: value for name, value in asdict(self).items() if name not in _TENSORS}


def _real(tensor: Tensor) -> Tensor:
    # safetensors stores no complex numbers: pairs of real ones, whose type the JSON beside them names
    return torch.view_as_real(tensor).contiguous() if tensor.is_complex() else tensor.contiguous()


def _typed(tensor: Tensor, kind: str) -> Tensor:
    return torch.view_as_complex(tensor) if "complex" in kind else tensor


def _bytes(tensor: Tensor) -> bytes:
    data: bytes = _real(tensor).numpy().tobytes()
    return data
