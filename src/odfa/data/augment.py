"""Simple augmentations of flat images: shifted, and mirrored left to right."""

from dataclasses import replace

import torch
from torch import Tensor

from odfa.data.splits import Split


def augmented(batch: Split, image: tuple[int, int, int], *, shift: int, flip: bool) -> Split:
    """Each image shifted by up to `shift` pixels each way and, if `flip`, mirrored with probability 1/2.

    What a shift uncovers repeats the image's edge. Draws come from torch's current random state, one per image.
    """
    if shift == 0 and not flip:
        return batch
    num_samples, (_, height, width) = len(batch), image
    down_N, right_N = torch.randint(-shift, shift + 1, (2, num_samples, 1))
    row_NH = (torch.arange(height) - down_N).clamp(0, height - 1)
    column_NW = (torch.arange(width) - right_N).clamp(0, width - 1)
    if flip:
        mirrored_N1 = torch.rand(num_samples, 1) < 0.5
        column_NW = torch.where(mirrored_N1, width - 1 - column_NW, column_NW)
    return replace(batch, x_ND=_gather(batch.x_ND.view(-1, *image), row_NH, column_NW).flatten(1))


def _gather(x_NCHW: Tensor, row_NH: Tensor, column_NW: Tensor) -> Tensor:
    sample_N = torch.arange(len(x_NCHW))
    return x_NCHW[sample_N[:, None, None], :, row_NH[:, :, None], column_NW[:, None, :]].permute(0, 3, 1, 2)
