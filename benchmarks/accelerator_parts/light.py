"""Full frames of the twin, off-axis: all mirrors to all camera pixels."""

import torch
from measuring import interleaved

from accelerator_parts.found import Found, Setting
from odfa import OffAxis, Twin
from odfa.flow import Capture, Frames
from odfa.keys import torch_generator

_DENSITY = 0.3
_BUDGET_S = 15.0


def frames(setting: Setting) -> Found:
    """Frames a second of the capture alone, and with the read-out of pairs of frames."""
    small = Twin(shape_dmd=(16, 32), shape_cam=(64, 64)) if setting.small else None
    twin, pairs, rounds = (small, 2, 2) if small else (Twin.preset("opu-2021"), 16, 9)
    shape = (pairs, 2, twin.num_mirrors)
    bits_NFD = (torch.rand(shape, generator=torch_generator(0)) < _DENSITY).to(setting.device)
    gain_NF = torch.tensor([1.0, -1.0], device=setting.device).expand(pairs, 2)
    demodulator = OffAxis()
    shown = demodulator.expand(Frames(bits_NFD=bits_NFD, gain_NF=gain_NF, encoder="bench"))
    found = Found(unit="frames/s", more={"size": {"mirrors": twin.num_mirrors, "camera": list(twin.shape_cam)}})

    def capture() -> Capture:
        return twin.run(shown, roi=twin.shape_cam)

    calls = {"capture": capture, "capture and read-out": lambda: demodulator.demodulate(capture(), shown)}
    seconds = interleaved(calls, rounds, device=setting.device, budget_s=_BUDGET_S, failed=found.failed)
    found.measured |= {name: [2 * pairs / taken for taken in each] for name, each in seconds.items()}
    return found
