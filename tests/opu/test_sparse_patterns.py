"""Patterns with a few lit mirrors take another way through the twin's medium, to the same field."""

import pytest
import torch

from odfa.opu.twin.medium import Medium, Scatterer
from odfa.sparse import few_lit


@pytest.mark.parametrize("modes", [5, 256, 300])
@pytest.mark.parametrize("lit", [0, 1, 3])
def test_few_lit_mirrors_give_the_field_of_the_dense_product(modes: int, lit: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x_FD = torch.zeros(7, 512)
    for row in range(7):
        x_FD[row, torch.randperm(512, generator=generator)[:lit]] = 1.0
    x_FD[3] = 0.0  # a dark pattern among lit ones
    few = few_lit(x_FD.bool())
    assert few is not None
    scatterer = Scatterer(3, 512, Medium(), torch.float32)
    found = scatterer.propagate(x_FD, modes, few=few)
    real_DM, imag_DM = scatterer._dense_up_to(modes)
    for part, matrix_DM in zip(found, (real_DM, imag_DM), strict=True):
        expected_FM = x_FD.double() @ matrix_DM[:, :modes].double()
        torch.testing.assert_close(part.double(), expected_FM, rtol=0, atol=1e-5)
