"""How the bits of a pattern fill the mirrors.

Frames of reference, always row before column: `dmd` (mirror row Y, column X), `cam` (camera row P, column Q), `mode`
(output index). Shape letters: `F` patterns · `D` inputs · `Y X` mirror rows, columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from odfa import arguments
from odfa.errors import Incompatible
from odfa.settings import SettingError


@dataclass(frozen=True, kw_only=True)
class MirrorLayout:
    """Input d lights a macro-pixel: `mirrors_per_input` mirrors in a row-major run inside the region of interest."""

    shape_dmd: tuple[int, int]
    """Rows and columns of mirrors."""
    num_inputs: int
    """Bits of a pattern."""
    roi_dmd: tuple[int, int, int, int] | None = None
    """First row, first column, rows, columns of the region used; None: all. Mirrors outside stay dark."""

    def __post_init__(self) -> None:
        shape_dmd = arguments.pair("shape_dmd", self.shape_dmd)
        try:
            top, left, rows, cols = (arguments.whole("roi_dmd", value, 0) for value in self.region)
        except (TypeError, ValueError) as error:  # SettingError is a ValueError
            raise SettingError(
                "roi_dmd", f"expected (first row, first column, rows, columns), got {self.roi_dmd!r}"
            ) from error
        if min(rows, cols) < 1 or top + rows > shape_dmd[0] or left + cols > shape_dmd[1]:
            inside = f"expected a region within {shape_dmd[0]} x {shape_dmd[1]} mirrors"
            raise SettingError("roi_dmd", f"{inside}, got {self.roi_dmd}")
        if not 1 <= arguments.whole("num_inputs", self.num_inputs, 0) <= rows * cols:
            raise Incompatible(
                f"{rows * cols} mirrors cannot show {self.num_inputs} inputs; use fewer inputs or more mirrors"
            )

    @property
    def region(self) -> tuple[int, int, int, int]:
        """First row, first column, rows, columns of the region used."""
        return self.roi_dmd or (0, 0, *self.shape_dmd)

    @property
    def mirrors_per_input(self) -> int:
        """Mirrors of one macro-pixel; what is left over at the end of the region stays dark."""
        return self.region[2] * self.region[3] // self.num_inputs

    def draw(self, bits_FD: Tensor) -> Tensor:
        """Mirror images (F, Y, X) bool of patterns (F, D)."""
        # runs of mirrors instead of squares: every input gets the same number of mirrors for any number of inputs,
        # and through a scattering medium the shape of a macro-pixel makes no difference
        top, left, rows, cols = self.region
        mirrors_FYX = torch.zeros((len(bits_FD), *self.shape_dmd), dtype=torch.bool)
        run_FN = bits_FD.new_zeros((len(bits_FD), rows * cols))
        run_FN[:, : self.num_inputs * self.mirrors_per_input] = bits_FD.repeat_interleave(self.mirrors_per_input, dim=1)
        mirrors_FYX[:, top : top + rows, left : left + cols] = run_FN.view(-1, rows, cols)
        return mirrors_FYX

    def read(self, mirrors_FYX: Tensor) -> Tensor:
        """Patterns (F, D) of mirror images: the first mirror of each macro-pixel."""
        top, left, rows, cols = self.region
        run_FN = mirrors_FYX[:, top : top + rows, left : left + cols].flatten(1)
        return run_FN[:, : self.num_inputs * self.mirrors_per_input : self.mirrors_per_input]
