"""A folder of idx files like Fashion-MNIST's, small, with images of no meaning."""

import struct
from pathlib import Path

import torch


def idx(shape: tuple[int, ...], values: bytes) -> bytes:
    """An idx file of unsigned bytes."""
    return bytes([0, 0, 8, len(shape)]) + b"".join(struct.pack(">I", length) for length in shape) + values


def write_images(folder: Path, *, side: int = 28, train: int = 40, test: int = 24, label: int = 9) -> str:
    """Images and labels of both parts, the first label as given; returns the folder."""
    generator = torch.Generator().manual_seed(0)
    for name, num in (("train", train), ("t10k", test)):
        pixels = torch.randint(0, 256, (num * side * side,), generator=generator, dtype=torch.uint8)
        labels = bytes([label, *(i % 10 for i in range(num - 1))])
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx((num, side, side), pixels.numpy().tobytes()))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx((num,), labels))
    return str(folder)
