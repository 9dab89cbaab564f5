"""The encoder's shell: arguments, names, random state."""

import copy
import pickle

import pytest
import torch

from odfa.encode import Ternary
from odfa.errors import ConfigError

E_ND = torch.tensor([[0.2, -0.5, 0.3], [0.1, 0.1, -0.2]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"quantiser": "ternary"}, "stochastic, best_cosine, relative_max, sampled"),
        ({"quantiser": "relative_max", "threshold": 1.0}, r"\[0, 1\)"),
        ({"threshold": -0.1}, r"\[0, 1\)"),
        ({"seed": 0.5}, "integer"),
        ({"repeats": 0}, "at least 1"),
        ({"repeats": 1.5}, "at least 1"),
        ({"repeats": True}, "at least 1"),
        ({"quantiser": "best_cosine", "repeats": 2}, "repeats=1"),
        ({"quantiser": "relative_max", "repeats": 2}, "repeats=1"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        Ternary(**arguments)


@pytest.mark.parametrize("e_ND", [torch.zeros(3), torch.zeros(2, 0), torch.zeros(2, 3, dtype=torch.long)])
def test_bad_rows_are_refused(e_ND):
    with pytest.raises(ConfigError, match=r"\(N, D\)"):
        Ternary().encode(e_ND)


def test_names_tell_encoders_apart():
    encoders = [
        Ternary(),
        Ternary(repeats=2),
        Ternary("sampled"),
        Ternary("best_cosine"),
        Ternary("relative_max"),
        Ternary("relative_max", threshold=0.25),
    ]
    assert len({encoder.name for encoder in encoders}) == len(encoders)
    assert [encoder.patterns_per_sample for encoder in encoders] == [2, 4, 2, 2, 2, 2]


@pytest.mark.parametrize("quantiser", ["stochastic", "sampled"])
def test_random_state_is_seed_and_calls(quantiser):
    e_ND = E_ND.repeat(20, 1)
    encoder = Ternary(quantiser, seed=1, repeats=5)
    encoder.encode(e_ND)
    resumed = Ternary(quantiser, seed=1, repeats=5)
    resumed.load_state_dict(encoder.state_dict())
    others = [copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)), resumed]
    second = encoder.encode(e_ND).bits_NFD
    assert all(torch.equal(second, other.encode(e_ND).bits_NFD) for other in others)
    assert not torch.equal(second, encoder.encode(e_ND).bits_NFD)
    assert not torch.equal(second, Ternary(quantiser, seed=1, repeats=5).encode(e_ND).bits_NFD)


def test_encoding_leaves_the_error_alone():
    e_ND = E_ND.clone().requires_grad_()
    frames = Ternary().encode(e_ND)
    assert torch.equal(e_ND, E_ND)
    assert not frames.gain_NF.requires_grad
