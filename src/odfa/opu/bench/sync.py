"""Sync frames: dark and lit patterns around and between the frames of a chunk tell whether each is where it should be.

Shape letters: `F` frames · `D` inputs · `P Q` camera rows, columns.
"""

import torch
from torch import Tensor

HEAD, TAIL = (0, 1, 0, 0, 1), (0, 1, 0)
"""0: all mirrors dark, 1: all lit. A shift by one frame either way changes every one of these words."""
_CONTRAST = 3.0
"""Lit frames must differ from dark ones this many times more than dark ones among themselves."""


def plan(num_frames: int, every: int) -> tuple[list[int], list[int], list[int]]:
    """Places of the frames, of the dark and of the lit sync frames in a chunk: head, frames with ticks, tail."""
    # head and tail catch a shift of all frames; the dark frames between catch one that starts in the middle
    places, dark, lit = list[int](), list[int](), list[int]()
    position = 0
    for word in (HEAD, None, TAIL):
        if word is None:
            for k in range(num_frames):
                if k and k % every == 0:
                    dark.append(position)
                    position += 1
                places.append(position)
                position += 1
        else:
            for state in word:
                (lit if state else dark).append(position)
                position += 1
    return places, dark, lit


def wrap(bits_FD: Tensor, every: int) -> tuple[Tensor, list[int], list[int], list[int]]:
    """Patterns with sync frames, and the places of frames, dark and lit sync frames."""
    places, dark, lit = plan(len(bits_FD), every)
    shown_FD = bits_FD.new_zeros((len(places) + len(dark) + len(lit), bits_FD.shape[1]))
    shown_FD[places] = bits_FD
    shown_FD[lit] = True
    return shown_FD, places, dark, lit


def in_step(counts_FPQ: Tensor, dark: list[int], lit: list[int]) -> bool:
    """True if the sync frames are where they were shown: the dark ones alike, the lit ones not.

    Only frames of one chunk are compared, so that neither a slow drift nor the laser's level plays a part.
    """
    # 0.5 counts is the rounding of a noiseless camera, whose dark frames would otherwise have a spread of zero
    dark_fPQ, lit_fPQ = counts_FPQ[dark].float(), counts_FPQ[lit].float()
    usual_PQ = dark_fPQ.median(0).values
    spread = (dark_fPQ - usual_PQ).square().mean((1, 2)).sqrt()
    apart = (lit_fPQ - usual_PQ).square().mean((1, 2)).sqrt()
    return bool(apart.min() > _CONTRAST * max(0.5, float(spread.max())))


def lag_of(counts_FPQ: Tensor, states: list[int], most: int) -> int | None:
    """Frames by which the camera lags behind the mirrors (0: none) for a sequence of dark and lit frames.

    The lag whose two groups are furthest apart against their spread; None if no lag explains the frames.
    """
    # every lag is tried: the first that separates dark from lit may be one whose pattern merely overlaps the true one
    found, best = None, _CONTRAST
    for lag in range(most + 1):
        shown = torch.tensor(states[: len(states) - lag], dtype=torch.bool)
        frames = counts_FPQ[lag:].float()
        dark, bright = frames[~shown], frames[shown]
        between = (dark.mean(0) - bright.mean(0)).square().mean().sqrt()
        within = torch.cat([dark - dark.mean(0), bright - bright.mean(0)]).square().mean().sqrt()
        if between / max(0.5, float(within)) > best:
            found, best = lag, float(between / max(0.5, float(within)))
    return found
