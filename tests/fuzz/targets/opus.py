"""OPUs of one's own that answer and describe themselves oddly."""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from odfa import AbstractOpu, Anchor, OffAxis, Optical, PhaseSteps, Twin
from odfa.project.calibrating import calibrate
from odfa.project.conformance import check
from tests.fuzz.base import Draw, Room, Target
from tests.fuzz.odd import INF, NAN

_REPLIES = (
    "right", "numpy", "uint16", "list", "none", "nan", "inf", "two axes", "four axes", "fewer", "more", "empty",
    "float", "negative", "bool", "complex", "text", "zeros", "full", "huge",
    "sparse", "meta", "transposed", "raise", "os error",
    "key error", "number", "object", "int64", "grad",
)  # fmt: skip
_ATTRIBUTES = {
    "opu_id": ("", None, 7, "a\nb", "x" * 400),
    "shape_dmd": ((0, 0), (2,), (3, 4, 5), "ab", None, (-2, 3), (2.5, 2), 8),
    "shape_cam": ((0, 0), (2,), (3, 4, 5), None, (-2, 3), (1, 1)),
    "rate_hz": (0, -1.0, NAN, INF, None, "fast"),
    "power_w": (-1.0, NAN, INF, None),
    "exposure_s": (0, -1.0, NAN, None),
    "full_scale": (0, -1, NAN, None, 1.5, 2**40),
    "arms": ((), None, "stepped", frozenset({"blocked"}), frozenset({"odd"}), ["stepped"], frozenset({"tilted"})),
    "saturated_limit": (NAN, -1, 2, None),
    "carrier_cpp": ((0.25,), (NAN, 0.1), "ab", (0.25, 0.25)),
    "pupil_cpp": (NAN, 0.0, -1.0, 0.1),
    "calibration_id": (7, ""),
}
_DEMODULATORS = {"phase": PhaseSteps, "anchor": Anchor, "offaxis": OffAxis}


class _Odd(AbstractOpu):
    """A twin without noise behind a driver that is not as it should be."""

    opu_id, shape_dmd, shape_cam = "odd", (8, 8), (16, 16)
    rate_hz, power_w, exposure_s, full_scale = 1e3, 10.0, 1e-4, 65535
    arms = frozenset({"stepped", "blocked"})

    def __init__(self, value: Any) -> None:
        self._twin, self._replies, self._from = Twin.ideal(), value["replies"], value["from"]
        self._asked, self._where = 0, value["where"]
        for name, content in value["attributes"]:
            setattr(self, name, content)

    def _run_hw(self, bits_FD: Tensor, *, phase_S: tuple[float, ...], arm: Any, roi: tuple[int, int]) -> Any:
        if self._where == "run":
            raise OSError("the SDK says 0x1f")
        counts = self._twin._run_hw(bits_FD, phase_S=phase_S, arm=arm, roi=roi)
        self._asked += 1
        return _reply(self._replies if self._asked > self._from else "right", counts)

    def _open_hw(self) -> None:
        if self._where == "open":
            raise OSError("no such port")

    def _close_hw(self) -> None:
        if self._where == "close":
            raise RuntimeError("cannot close\nnow")

    def counts_per_intensity(self, num_inputs: int, arm: Any) -> float:
        return NAN if self._where == "gain" else self._twin.counts_per_intensity(num_inputs, arm)

    def reference_amplitude(self, num_inputs: int) -> float:
        return self._twin.reference_amplitude(num_inputs)


def _reply(kind: str, counts: Tensor) -> Any:
    if kind in ("raise", "os error", "key error"):
        raise {"raise": RuntimeError, "os error": OSError, "key error": KeyError}[kind](f"SDK: {kind}\nsecond line")
    replies: dict[str, Any] = {
        "numpy": lambda: counts.numpy(), "uint16": lambda: counts.numpy().astype(np.uint16), "list": counts.tolist,
        "none": lambda: None, "nan": lambda: counts.float() * NAN, "inf": lambda: counts.float() * INF,
        "two axes": lambda: counts.flatten(1), "four axes": lambda: counts[None], "fewer": lambda: counts[:-1],
        "more": lambda: torch.cat([counts, counts[:1]]), "empty": lambda: counts[:0], "float": lambda: counts.float(),
        "negative": lambda: -counts.int(), "bool": lambda: counts > 0, "complex": lambda: counts.to(torch.complex64),
        "text": lambda: "counts", "zeros": lambda: counts * 0, "full": lambda: counts * 0 + counts.max(),
        "number": lambda: 7,
        "huge": lambda: counts.double() * 1e300, "sparse": lambda: counts.float().to_sparse(), "object": object,
        "meta": lambda: counts.to("meta"), "transposed": lambda: counts.mT, "int64": lambda: counts.long(),
        "grad": lambda: counts.float().requires_grad_(),
    }  # fmt: skip
    return replies[kind]() if kind in replies else counts


class Opus(Target):
    """{"replies", "from": right answers before, "where", "attributes", "use", "demodulator"}."""

    name, share = "opus", 7

    def draw(self, draw: Draw) -> Any:
        names = draw(st.lists(st.sampled_from(sorted(_ATTRIBUTES)), max_size=2, unique=True))
        names = names if draw(st.booleans()) else []
        return {
            "replies": draw(st.sampled_from(_REPLIES)),
            "from": draw(st.sampled_from((0, 0, 1, 3))),
            "where": draw(st.sampled_from((*("reply",) * 8, "run", "open", "close", "gain"))),
            "attributes": [(name, draw(st.sampled_from(_ATTRIBUTES[name]))) for name in names],
            "use": draw(st.sampled_from(("project", "project", "check", "calibrate", "matrix"))),
            "demodulator": draw(st.sampled_from(("phase", "phase", "phase", "anchor", "offaxis"))),
        }

    def lay(self, value: Any, room: Room) -> None:
        pass

    def run(self, value: Any, room: Room) -> Any:
        demodulator = _DEMODULATORS[value["demodulator"]]()
        with _Odd(value) as opu:
            if value["use"] == "project":
                return Optical(opu, demodulator=demodulator).shaped(5, 6).project(torch.eye(5))
            if value["use"] == "check":
                return check(opu, num_inputs=4, num_modes=2, demodulator=demodulator).to_json()
            matrix = "hadamard" if value["use"] == "matrix" else None
            found = calibrate(opu, num_inputs=4, num_modes=2, demodulator=demodulator, matrix=matrix)
            found.save(room.given / "calibration")
            return found.figures()
