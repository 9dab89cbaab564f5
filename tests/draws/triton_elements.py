"""Triton's kernel of draws in the interpreter: run by `test_triton` in a process with TRITON_INTERPRET=1."""

import os

import pytest
import torch

from odfa.draws import Draws, accelerated
from odfa.draws.accelerated import fill_on_accelerator
from tests.draws.test_draws import FIRST, LAWS, SHAPES

assert os.environ.get("TRITON_INTERPRET") == "1", "expected TRITON_INTERPRET=1; run test_triton.py"


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("first_row", FIRST)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 4099)], ids=str)
def test_numbers_are_those_of_the_processor(shape, first_row, law, monkeypatch):
    monkeypatch.setattr(accelerated, "_COUNTERS", 64)
    found_RC = torch.full(shape, torch.nan)
    fill_on_accelerator(law, found_RC, Draws(3).key, first_row)
    assert torch.equal(found_RC, getattr(Draws(3), law)(*shape, first_row=first_row))
