"""From patterns to a field: the steps that every projection by an OPU and every measurement of one takes.

Shape letters: `N` samples · `D` inputs · `F` patterns per sample · `M` optical modes.
"""

import torch
from torch import Tensor

from odfa.demodulate import AbstractDemodulator
from odfa.flow import Capture, Frames
from odfa.opu import AbstractOpu


class LightPath:
    """Patterns on an OPU's mirrors, its camera's counts, and the field of `num_modes` modes that a demodulator reads.

    frames (N, F, D) -> demodulator.expand -> opu.run -> demodulator.demodulate -> field (N, M)
    """

    def __init__(self, opu: AbstractOpu, demodulator: AbstractDemodulator, num_inputs: int, num_modes: int) -> None:
        """Join OPU and demodulator.

        Args:
            opu: shows the patterns.
            demodulator: reads the counts.
            num_inputs: D, width of the patterns that an encoder makes.
            num_modes: M, modes that the camera's region must hold.

        Raises:
            Incompatible: the OPU lacks mirrors, pixels or the reference arm; found before the first frame.
            OpuError: the OPU does not state its abilities sensibly.
        """
        self.opu, self.demodulator = opu, demodulator
        self.num_inputs, self.num_modes = num_inputs, num_modes
        opu.require(num_inputs=demodulator.inputs(num_inputs), roi=self.roi, arm=demodulator.arm)

    @property
    def roi(self) -> tuple[int, int]:
        """Camera rows and columns that the modes take."""
        return self.demodulator.roi(self.num_modes, self.opu.view)

    def show(self, frames: Frames, *, ops_useful: float = 0.0) -> tuple[Tensor, Capture]:
        """Field (N, at least M) of an encoder's patterns, and the counts that it was read from.

        Args:
            frames: the encoder's patterns; what the demodulator needs beside them is added here.
            ops_useful: operations that these patterns stand for, for the account of the light.

        Raises:
            OpuError: the OPU fails.
        """
        # in full precision even where the loop is under autocast: half precision ends at 65504, below sums of counts
        with torch.autocast(frames.bits_NFD.device.type, enabled=False):
            expanded = self.demodulator.expand(frames)
            capture = self.opu.run(expanded, roi=self.roi, ops_useful=ops_useful)
            return self.demodulator.demodulate(capture, expanded).field_NM, capture

    def field(self, frames: Frames) -> Tensor:
        """Field (N, M) of an encoder's patterns, the modes asked for."""
        return self.show(frames)[0][:, : self.num_modes]
