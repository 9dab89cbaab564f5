"""The examples in the docstrings of the light path run as they stand."""

import doctest

import pytest
import torch

from odfa import encode, opu, project
from odfa.draws import draws
from odfa.encode import ternary
from odfa.opu.twin import twin
from odfa.project import encoded, gaussian, identity, optical


@pytest.mark.parametrize(
    "module", [draws, ternary, twin, gaussian, identity, encoded, optical], ids=lambda module: module.__name__
)
def test_examples_run(module):
    names = {**vars(encode), **vars(opu), **vars(project), "torch": torch}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted >= 1
    assert result.failed == 0
