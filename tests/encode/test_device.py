"""Codes are the processor's bit for bit on an accelerator, of which nothing is waited for."""

import pytest
import torch
from tests.far import DEVICE, FETCHED, one_accelerator

from odfa.draws import Draws
from odfa.encode import BitPlanes, Sign, Spread, Ternary, TritPlanes

MAKERS = [
    lambda: Ternary("stochastic", repeats=2, seed=3),
    lambda: Ternary("sampled", repeats=2, seed=3),
    lambda: Ternary("best_cosine"),
    lambda: Ternary("relative_max"),
    lambda: TritPlanes(2, seed=3),
    lambda: Spread(TritPlanes(2, seed=3)),
    lambda: Sign(),
    lambda: BitPlanes(3),
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: repr(make()))
def test_codes_there_are_those_here(make, monkeypatch):
    e_ND = Draws(5).normal(7, 33)
    here = [encoder.encode(e_ND) for encoder in [make()] for _ in range(2)]
    with one_accelerator(monkeypatch):
        there_ND, encoder = e_ND.to(DEVICE), make()
        FETCHED.clear()
        there = [encoder.encode(there_ND) for _ in range(2)]
        assert FETCHED == []
        assert all(frames.bits_NFD.device == DEVICE for frames in there)
        bits, gains = [frames.bits_NFD.cpu() for frames in there], [frames.gain_NF.cpu() for frames in there]
    for frames, bits_NFD, gain_NF in zip(here, bits, gains, strict=True):
        assert torch.equal(frames.bits_NFD, bits_NFD)
        assert torch.equal(frames.gain_NF, gain_NF)
