"""Settings of a rule that name blocks or axes which the model does not have."""

import pytest
import torch
from torch import nn

from odfa import DFA, RandomFeedback
from odfa.errors import ConfigError, MatchError


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def test_a_pattern_that_describes_no_block() -> None:
    with pytest.raises(ConfigError, match=r"per_sample: expected patterns of the blocks .*, got 'zzz'"):
        DFA(_model(), rule=RandomFeedback(per_sample=("*", "zzz")))


def test_axes_where_every_output_has_its_batch_first() -> None:
    model = _model()
    dfa = DFA(model, rule=RandomFeedback(batch_axes=(1, 1)))
    with pytest.raises(MatchError, match=r"batch_axes=\(1, 1\): expected a block output of three or more axes"):
        dfa.backward(model(torch.randn(2, 4)).square().mean())
