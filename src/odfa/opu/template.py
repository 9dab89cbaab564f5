"""An OPU to copy: fill in what the comments ask for, register it, and run `odfa opu check`.

    [project.entry-points."odfa.opus"]
    my-opu = "my_lab.opu:MyOPU"

Mirrors and camera are two things? Then write an `AbstractModulator` and an `AbstractCamera` and join them in a `Bench`,
which adds sync frames, retries and exposure search. The physics below is a stand-in: a random matrix and a reference.
"""

import torch
from torch import Tensor

from odfa.opu import AbstractOpu


class MyOPU(AbstractOpu):
    """An OPU with a stepped reference."""

    opu_id = "my-opu"  # change it whenever the optics are touched: it names the matrix
    shape_dmd, shape_cam = (100, 100), (100, 100)  # rows, columns
    rate_hz, power_w, exposure_s, full_scale = 1440.0, 30.0, 400e-6, 4095
    arms = frozenset({"stepped"})  # or "tilted" (then state carrier_cpp and pupil_cpp), or "blocked"

    def _open_hw(self) -> None:
        self.generator = torch.Generator().manual_seed(7)  # connect to the hardware here

    def _run_hw(self, bits_FD: Tensor, *, phase_S: tuple[float, ...], arm: str, roi: tuple[int, int]) -> Tensor:
        matrix_DN = torch.randn(
            bits_FD.shape[1], 10_000, dtype=torch.complex64, generator=self.generator.manual_seed(7)
        )
        speckle_FN = bits_FD.to(torch.complex64) @ matrix_DN[:, : roi[0] * roi[1]]  # show the patterns and grab instead
        wave_S1 = torch.polar(torch.full((max(1, len(phase_S)),), 20.0), torch.tensor(phase_S or (0.0,)))[:, None]
        counts_FSN = (speckle_FN[:, None] + wave_S1).abs().square()  # every pattern at every phase in turn
        return counts_FSN.round().clamp(0, self.full_scale).to(torch.int16).view(-1, *roi)

    def _close_hw(self) -> None:
        del self.generator  # release the hardware here
