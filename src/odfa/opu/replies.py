"""What a vendor's library raises or returns, turned into named errors and into counts that torch calculates with.

Shape letters: `F` frames · `P Q` camera rows, columns.
"""

import textwrap
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from odfa.errors import Disconnected, FrameMismatch, OdfaError, OpuError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_CPU = torch.device("cpu")
_LONGEST = 300
"""Characters of a vendor's message that are repeated."""
_SIGNED = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_WIDER = {"u2": np.int32, "u4": np.int64, "u8": np.int64}
_WANTED = "expected integers (frames, rows, columns) as a tensor, a NumPy array or nested lists"


def one_line(error: BaseException) -> str:
    """Class and message of an error in one line."""
    text = textwrap.shorten(str(error), _LONGEST, placeholder=" …")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def ask(who: str, act: Callable[_P, _R], *arguments: _P.args, **settings: _P.kwargs) -> _R:
    """The result of `act`, a call into a vendor's library.

    Raises:
        Disconnected: `act` raises anything that is no error of odfa.
    """
    try:
        return act(*arguments, **settings)
    except OdfaError:
        raise
    except Exception as error:  # vendor libraries raise anything
        raise Disconnected(f"{who}: {one_line(error)}") from error


def counts_of(who: str, reply: object, shape_PQ: tuple[int, int], device: torch.device = _CPU) -> Tensor:
    """Counts (F, P, Q) of a reply, of a signed type or uint8; an empty reply is no frames.

    Tensors, NumPy arrays of any integer type, byte order and stride, and nested lists are taken. Those on `device` stay
    there, all others come to the CPU.

    Raises:
        OpuError: no integers, negative ones, or none at all.
        FrameMismatch: not three axes, or frames of another shape than `shape_PQ`.
    """
    counts_FPQ = _tensor(who, reply, device)
    if not counts_FPQ.numel() and not len(counts_FPQ):
        return counts_FPQ.reshape(0, *shape_PQ)
    if counts_FPQ.ndim != 3 or tuple(counts_FPQ.shape[1:]) != tuple(shape_PQ):
        raise FrameMismatch(
            f"{who}: counts of shape {tuple(counts_FPQ.shape)} came back, expected frames of {shape_PQ[0]} x "
            f"{shape_PQ[1]} pixels, three axes even for one frame"
        )
    if counts_FPQ.dtype != torch.uint8 and int(counts_FPQ.min()) < 0:
        raise OpuError(
            f"{who}: counts down to {int(counts_FPQ.min())} came back, expected 0 or more; read the camera's words as "
            "unsigned integers"
        )
    return counts_FPQ


def numbers_of(who: str, reply: Any, num_frames: int) -> list[int] | None:
    """The camera's own frame numbers; None where it does not count.

    Raises:
        OpuError: not one integer a frame.
    """
    if reply is None:
        return None
    try:
        given = list(reply)
        numbers = [int(number) for number in given if int(number) == number]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last by tensors of several numbers
        given, numbers = [], []
    if not isinstance(reply, list | tuple | np.ndarray | Tensor) or not len(numbers) == len(given) == num_frames:
        raise OpuError(
            f"{who}: frame numbers {_brief(reply)} came back with {num_frames} frames, expected one integer a frame, "
            "or None from a camera that does not count"
        )
    return numbers


def _tensor(who: str, reply: object, device: torch.device) -> Tensor:
    # Whatever the vendor's library returns must arrive as integers that torch computes with. Floats are refused, not
    # rounded: a driver that returns them has scaled the counts, and full scale and noise would no longer be known.
    plain = isinstance(reply, Tensor) and reply.dtype in _SIGNED and reply.layout == torch.strided
    if isinstance(reply, Tensor) and plain and reply.device in (_CPU, device):
        return torch.atleast_1d(reply).contiguous()  # type: ignore[no-untyped-call, no-any-return]
    try:
        array = reply.cpu().numpy() if isinstance(reply, Tensor) else reply
        if isinstance(reply, list | tuple):
            array = np.asarray([row.cpu().numpy() if isinstance(row, Tensor) else row for row in reply])
            array = array if array.size else array.astype(np.uint8)  # an empty list has no type of its own
    except (ValueError, TypeError, RuntimeError) as error:  # unequal rows, or tensors that hold no numbers here
        raise OpuError(f"{who}: {_brief(reply)} came back, {_WANTED}") from error
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "ui":
        raise OpuError(f"{who}: {_brief(reply if isinstance(reply, Tensor) else array)} came back, {_WANTED}")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.size and int(array.max()) >= 2**63:
        raise OpuError(f"{who}: counts beyond 2^63 came back, {_WANTED}")
    # a copy, because the vendor's buffer is filled again; torch calculates with no unsigned type but uint8
    kind = _WIDER.get(array.dtype.str[1:], array.dtype.newbyteorder("="))
    return torch.from_numpy(np.atleast_1d(np.array(array, dtype=kind, order="C")))


def _brief(reply: object) -> str:
    """A reply in a few words: its type, and what is odd about it."""
    if reply is None:
        return "None"
    if not isinstance(reply, np.ndarray | Tensor):
        return textwrap.shorten(f"{type(reply).__name__} {reply!r}", 80, placeholder=" …")
    kind = "a masked array" if isinstance(reply, np.ma.MaskedArray) else f"{reply.dtype} of shape {tuple(reply.shape)}"
    if isinstance(reply, Tensor):
        plain = reply.layout == torch.strided and not reply.is_meta  # others hold no numbers that can be looked at
        odd = plain and reply.is_floating_point() and not bool(torch.isfinite(reply).all())
    else:
        odd = reply.dtype.kind in "fc" and not np.isfinite(reply).all()
    return f"{kind}, NaN or infinite in places," if odd else kind
