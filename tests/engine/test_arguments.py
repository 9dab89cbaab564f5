"""Arguments of the wrong kind: refused before the model is touched, with words that work."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import odfa


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


ADVISED = {
    "a word": ({"projection": "gaussian"}, "projection: expected a projection, got str 'gaussian'"),
    "another word": ({"projection": "Hadamard"}, "got str 'Hadamard'"),
    "a word for light": ({"projection": "optical"}, "got str 'optical'"),
    "a class": ({"projection": odfa.Rademacher}, "got the class Rademacher"),
    "the class of an OPU": ({"projection": odfa.Twin}, "got the class Twin"),
    "a word for a rule": ({"rule": "aligned"}, "rule: expected a rule, got str 'aligned'"),
    "a word for a rule behind the front door": ({"rule": "kolen_pollack"}, "got str 'kolen_pollack'"),
    "the class of a rule behind the front door": ({"rule": odfa.engine.Drtp}, "got the class Drtp"),
    "the class of a rule": ({"rule": odfa.Shallow}, "rule: expected a rule, got the class Shallow"),
    "a word for an encoder": ({"encoder": "ternary"}, "encoder: expected an encoder, got str 'ternary'"),
    "the class of an encoder": ({"encoder": odfa.Sign}, "encoder: expected an encoder, got the class Sign"),
    "a matrix": ({"projection": np.ones((3, 16))}, "got ndarray"),
}


@pytest.mark.parametrize(("arguments", "got"), ADVISED.values(), ids=ADVISED)
def test_the_advice_is_followed(arguments, got):
    model = net()
    with pytest.raises(odfa.ConfigError) as caught:
        odfa.DFA(model, **arguments)
    message = str(caught.value)
    assert got in message
    assert "\n" not in message
    assert odfa.DFA.of(model) is None
    advised = eval(f"dict({message.rpartition('; write ')[2]})", {"odfa": odfa})
    assert [*advised] == [*arguments]
    settings = {"rank": 1} if type(advised.get("rule")) is odfa.AlignedHead else {}
    if settings:
        advised["rule"] = odfa.AlignedHead(**settings)
    assert odfa.DFA(model, **advised)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"projection": odfa.Twin()}, r"write projection=odfa\.Optical\(opu\)$"),
        ({"projection": odfa.Ternary()}, r"write encoder=Ternary\(…\)$"),
        ({"rule": odfa.Gaussian()}, r"write projection=Gaussian\(…\)$"),
        ({"error_at": 3}, "error_at: expected a name or a list of names, got int"),
        ({"branches": [1]}, "branches: expected a name or a list of names"),
        ({"linears": None}, "linears: expected a name or a list of names, got NoneType"),
        ({"blocks": 3}, "blocks: expected a pattern or a list, got int"),
        ({"blocks": nn.Linear(2, 2)}, r"got Linear; write blocks=\[module, …\]"),
        ({"blocks": (block for block in net())}, "got generator"),
    ],
)
def test_what_is_in_the_wrong_place_is_named(arguments, advice):
    with pytest.raises(odfa.ConfigError, match=advice):
        odfa.DFA(net(), **arguments)


@pytest.mark.parametrize("model", [nn.Linear, "net", None])
def test_a_model_is_a_module(model):
    with pytest.raises(odfa.ConfigError, match="model: expected a module"):
        odfa.DFA(model)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: odfa.Optical("ideal"), "write odfa.Optical(odfa.open_opu(name))"),
        (lambda: odfa.Optical(odfa.Twin), "opu: expected an opu, got the class Twin"),
        (lambda: odfa.Optical(odfa.Twin(), encoder="ternary"), "write encoder=odfa.Ternary()"),
        (lambda: odfa.Optical(odfa.Twin(), demodulator="phase"), "write demodulator=odfa.PhaseSteps()"),
        (lambda: odfa.Optical(odfa.Twin(), guard=True), "write guard=odfa.Guard()"),
    ],
)  # fmt: skip
def test_a_light_path_of_the_wrong_parts(make, advice):
    with pytest.raises(odfa.ConfigError, match=re.escape(advice)):
        make()


@pytest.mark.parametrize("rows", [np.eye(4), [[1, 0, 0, 0]]], ids=["an array", "a list"])
def test_rows_are_a_tensor(rows):
    projection = odfa.Gaussian().shaped(4, 3)
    with pytest.raises(odfa.ConfigError, match=r"write project\(torch\.as_tensor\(rows, dtype=torch\.float32\)\)"):
        projection.project(rows)
    assert projection.project(torch.as_tensor(rows, dtype=torch.float32)).shape == (len(rows), 3)
