"""Augmented images against shifts written out pixel by pixel."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from odfa.data import Split, augmented


def _moved(x_CHW: torch.Tensor, down: int, right: int, mirrored: bool) -> bytes:
    _, height, width = x_CHW.shape
    y_CHW = torch.empty_like(x_CHW)
    for h, w in itertools.product(range(height), range(width)):
        column = min(max(w - right, 0), width - 1)
        y_CHW[:, h, w] = x_CHW[:, min(max(h - down, 0), height - 1), width - 1 - column if mirrored else column]
    return y_CHW.numpy().tobytes()


@given(shift=st.integers(0, 2), flip=st.booleans(), seed=st.integers(0, 999))
def test_every_image_is_one_of_the_shifts_of_its_own(shift: int, flip: bool, seed: int) -> None:
    torch.manual_seed(seed)
    image, batch = (2, 3, 4), Split(x_ND=torch.randn(3, 24), y_N=torch.arange(3))
    changed = augmented(batch, image, shift=shift, flip=flip)
    ways = list(itertools.product(range(-shift, shift + 1), range(-shift, shift + 1), {False, flip}))
    for before_D, after_D in zip(batch.x_ND, changed.x_ND, strict=True):
        assert after_D.numpy().tobytes() in {_moved(before_D.view(image), *way) for way in ways}
    assert torch.equal(changed.y_N, batch.y_N)


def test_every_shift_and_both_sides_come_up() -> None:
    torch.manual_seed(0)
    x_D = torch.arange(30, dtype=torch.float32)
    batch = Split(x_ND=x_D.expand(2000, 30), y_N=torch.zeros(2000, dtype=torch.long))
    seen = {row.numpy().tobytes() for row in augmented(batch, (1, 5, 6), shift=1, flip=True).x_ND}
    ways = itertools.product((-1, 0, 1), (-1, 0, 1), (False, True))
    assert seen == {_moved(x_D.view(1, 5, 6), *way) for way in ways}


def test_nothing_asked_for_changes_nothing_and_draws_nothing() -> None:
    batch = Split(x_ND=torch.randn(2, 6), y_N=torch.zeros(2, dtype=torch.long))
    before = torch.random.get_rng_state()
    assert augmented(batch, (1, 2, 3), shift=0, flip=False) is batch
    assert torch.equal(torch.random.get_rng_state(), before)
