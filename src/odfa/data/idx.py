"""Reader of idx files, plain or gzipped (the format of MNIST and its successors; Y. LeCun, "The MNIST database").

Header: two zero bytes, one type byte (0x08: unsigned byte), one byte with the number of axes, then the length of each
axis as a big-endian 32-bit integer; the values follow, last axis fastest.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from odfa.errors import DataError

_UNSIGNED_BYTE = 0x08
_MAX_VALUES = 2**34
_CHUNK = 2**20
_MOST_PACKED = 1032
"""Bytes that one byte of a deflated stream stands for at most."""


def read_idx(path: Path, *, axes: int) -> Tensor:
    """Values as uint8, shaped as the header says.

    Raises:
        DataError: the file is missing, truncated, longer than declared, or not an idx file of bytes with `axes` axes.
    """
    try:
        with _open(path) as stream:
            shape = _read_header(stream, path, axes)
            values = _read_values(stream, math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; is it complete?") from error
    if len(values) != math.prod(shape):
        more = "more" if len(values) > math.prod(shape) else f"only {len(values)}"
        raise DataError(f"{path}: the header declares {math.prod(shape)} values, the file holds {more}; fetch it again")
    return torch.frombuffer(values, dtype=torch.uint8).view(shape)


def read_idx_shape(path: Path, *, axes: int) -> tuple[int, ...]:
    """The shape in the header, without the values; models are made for it, and so the file must be long enough.

    Raises:
        DataError: as `read_idx`; a gzipped file is only held to what a file of its length can hold.
    """
    try:
        with _open(path) as stream:
            shape = _read_header(stream, path, axes)
        held = path.stat().st_size - 4 - 4 * axes
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; is it complete?") from error
    declared = math.prod(shape)
    if path.suffix == ".gz":
        if declared > _MOST_PACKED * path.stat().st_size:
            raise DataError(f"{path}: the header declares {declared} values, more than so short a file can hold")
    elif held != declared:
        raise DataError(f"{path}: the header declares {declared} values, the file holds {held}; fetch it again")
    return shape


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _read_values(stream: BinaryIO, most: int) -> bytearray:
    """Up to `most` bytes, read piece by piece into one buffer."""
    # a header may declare more than the file holds: memory grows with what is really there
    values = bytearray()
    while chunk := stream.read(min(_CHUNK, most - len(values))):
        values += chunk
    return values


def _read_header(stream: BinaryIO, path: Path, axes: int) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{path}: expected an idx file (two zero bytes, type, rank), it starts with {magic!r}")
    if magic[2] != _UNSIGNED_BYTE or magic[3] != axes:
        raise DataError(f"{path}: expected bytes (type 8) with {axes} axes, got type {magic[2]} with {magic[3]}")
    lengths = stream.read(4 * axes)
    if len(lengths) < 4 * axes:
        raise DataError(f"{path}: the header is truncated; fetch the file again")
    shape = struct.unpack(f">{axes}I", lengths)
    if not 0 < math.prod(shape) <= _MAX_VALUES:
        raise DataError(f"{path}: the header declares shape {shape}; expected between 1 and 2^34 values")
    return shape
