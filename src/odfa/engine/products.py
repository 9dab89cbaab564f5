"""Products delta M that several layers ask for, computed once: in Python, and in code that torch has compiled."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odfa.engine.layers import Layout


def times(delta_NO: Tensor, matrix: Tensor, layout: Layout) -> Tensor:
    """delta M, (N, inputs), for a matrix in the layout of a weight."""
    return delta_NO @ (matrix if layout == "outputs x inputs" else matrix.T)


@dataclass(frozen=True)
class _Kept:
    """A product and its factors, all kept alive: their memory cannot have been given to other tensors."""

    delta_NO: Tensor
    matrix: Tensor
    signal: Tensor
    """In whose memory delta lies, and whose version tells of writing to it."""
    version: int
    product_NI: Tensor

    def answers(self, delta_NO: Tensor, matrix: Tensor) -> bool:
        return self.signal._version == self.version and _same(self.delta_NO, delta_NO) and _same(self.matrix, matrix)


class Products:
    """delta M, once for all layers of a shape whose delta is the same tensor: same memory, alive, not written to since.

    What compiled code computes in between it may overwrite without a trace, so that a delta shares a product there only
    if it lies in the memory of the gradient that came to the code from outside, which the code never writes to.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Layout, torch.Size], _Kept] = {}
        self._arrived: Tensor | None = None

    def forget(self) -> None:
        """A pass begins: let go of the products of the last one."""
        self._kept.clear()
        self._arrived = None

    def arrives(self, gradient: Tensor) -> None:
        """Autograd is about to hand this gradient to compiled code."""
        self._arrived = gradient

    def once(self, delta_NO: Tensor, matrix: Tensor, layout: Layout) -> Tensor:
        """delta M, (N, inputs); whoever asks for the same one gets the same tensor and must not write to it."""
        return self._of(delta_NO, matrix, layout, signal=delta_NO)

    def in_compiled(self, delta_NO: Tensor, matrix: Tensor, layout: Layout) -> Tensor:
        """delta M, (N, inputs), for compiled code, which may write to what it gets: what is kept is copied."""
        signal = self._arrived
        if signal is None or not _within(delta_NO, signal) or _captured(delta_NO):
            return times(delta_NO, matrix, layout)
        return self._of(delta_NO, matrix, layout, signal=signal).clone()

    def _of(self, delta_NO: Tensor, matrix: Tensor, layout: Layout, *, signal: Tensor) -> Tensor:
        kept = self._kept.get((layout, matrix.shape))
        if kept is None or not kept.answers(delta_NO, matrix):
            product_NI = times(delta_NO, matrix, layout)
            kept = self._kept[layout, matrix.shape] = _Kept(delta_NO, matrix, signal, signal._version, product_NI)
        return kept.product_NI


def _same(one: Tensor, other: Tensor) -> bool:
    place = one.data_ptr() == other.data_ptr() and one.device == other.device and one.dtype == other.dtype
    return place and one.shape == other.shape and one.stride() == other.stride()


def _within(view: Tensor, tensor: Tensor) -> bool:
    return view.device == tensor.device and view.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


def _captured(tensor: Tensor) -> bool:
    """A CUDA graph is being recorded, which will repeat a product with new numbers, but not Python's choice."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()
