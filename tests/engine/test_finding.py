"""The right blocks and the right head by default, whatever a model's layout; and advice that helps when followed."""

import ast
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from odfa.engine import DFA
from odfa.errors import MatchError
from tests.engine.architectures import LAYOUTS, D, Own, chain, mlp, pairs, wrap
from tests.engine.problems import gradients


@pytest.mark.parametrize("name", LAYOUTS)
def test_blocks_and_head_are_found_and_learn(name: str) -> None:
    torch.manual_seed(0)
    layout = LAYOUTS[name]
    model = layout.build().train()
    used = {key for key, grad in gradients(model, layout.loss).items() if grad is not None}
    dfa = DFA(model)
    assert (list(dfa.blocks), str(dfa.tap)) == (layout.blocks, f"{layout.head}:output")
    ours = gradients(model, layout.loss)
    assert {key for key, grad in ours.items() if grad is not None} == used
    assert dfa.members is not None
    assert set(dfa.members.blocks) <= set(layout.blocks)
    assert all(dfa.members.blocks.values())


def trained(build: Callable[[], nn.Module], *, by_backpropagation: bool = False, **settings: Any) -> float:
    """Loss after fifty steps on the sign of one input; the settings are the handle's."""
    torch.manual_seed(0)
    model, x_ND = build(), torch.randn(64, D)
    y_N = (x_ND[:, 0] > 0).long()
    if not by_backpropagation:
        DFA(model, **{key: value(model) if callable(value) else value for key, value in settings.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(50):
        loss = nn.functional.cross_entropy(model(x_ND), y_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@cache
def by_default(build: Callable[[], nn.Module]) -> float:
    return trained(build)


def in_lists() -> nn.Module:
    return chain(layers=nn.ModuleList(nn.ModuleList(pairs()) for _ in range(2)), head=nn.Linear(D, 3))


def with_norms() -> nn.Module:
    layers = (nn.ModuleList([nn.LayerNorm(D), nn.Linear(D, D), nn.Tanh()]) for _ in range(2))
    return chain(layers=nn.ModuleList(layers), head=nn.Linear(D, 3))


def in_dictionaries() -> nn.Module:
    layers = (nn.ModuleDict({"norm": nn.LayerNorm(D), "linear": nn.Linear(D, D), "act": nn.Tanh()}) for _ in range(2))
    return chain(layers=nn.ModuleList(layers), head=nn.Linear(D, 3))


def list_with_head() -> nn.Module:
    return chain(layers=nn.ModuleList([*pairs(), nn.Linear(D, 3)]))


def _written(message: str) -> list[str]:
    """The Python list that a message ends with."""
    found = ast.literal_eval(message[message.index("[") :])
    assert isinstance(found, list)
    return found


def _named(message: str, before: str) -> str:
    found = re.search(rf"{before} ([\w.]+)", message)
    assert found, message
    return found[1].rstrip(".,;")


NAMES_OF_LIST = ["layers.0", "layers.1", "layers.2"]
ADVICE: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], Callable[[str], dict[str, Any]]]] = {
    "the head is a block": (
        list_with_head,
        {"blocks": "layers.*"},
        lambda m: {"blocks": [n for n in NAMES_OF_LIST if n != _named(m, "leave")]},
    ),
    "the whole model is a block": (
        lambda: wrap(mlp()),
        {"blocks": "net"},
        lambda m: {} if "leave blocks= out" in m else {"blocks": "net"},
    ),
    "lists are no blocks": (in_lists, {"blocks": "layers.*"}, lambda m: {"blocks": _written(m)}),
    "a list is no block": (in_lists, {"blocks": ["layers"]}, lambda m: {"blocks": _written(m)}),
    "one list and one block": (
        in_lists,
        {"blocks": ["layers.0", "layers.1.0", "layers.1.1"]},
        lambda m: {"blocks": _written(m)},
    ),
    "lists with norms": (with_norms, {"blocks": "layers.*"}, lambda m: {"blocks": _written(m)}),
    "dictionaries": (in_dictionaries, {"blocks": "layers.*"}, lambda m: {"blocks": _written(m)}),
    "misspelt": (in_lists, {"blocks": "layer.*.*"}, lambda m: {"blocks": [_named(m, "nearest names are")]}),
    "no block": (in_lists, {"blocks": []}, lambda m: {"blocks": None} if "None to have them found" in m else {}),
    "twice": (
        in_lists,
        {"blocks": ["layers.*.*", "layers.*.0"]},
        lambda m: {"blocks": re.findall(r"'([^']+)'", m)[0]},
    ),
    "two levels": (in_lists, {"blocks": ["layers.0.0", "layers.0.0.1"]}, lambda m: {"blocks": [_named(m, "block")]}),
    "a block of another model": (
        list_with_head,
        {"blocks": pairs()},
        lambda m: {"blocks": (lambda model: list(model.layers)[:2]) if "pass modules of this model" in m else ""},
    ),
    "names and modules": (
        list_with_head,
        {"blocks": lambda model: ["layers.0", model.layers[1]]},
        lambda m: {"blocks": (lambda model: list(model.layers)[:2]) if "modules only" in m else ""},
    ),
    "one module twice": (
        list_with_head,
        {"blocks": lambda model: [model.layers[0], model.layers[0]]},
        lambda m: {"blocks": (lambda model: [model.layers[0]]) if "list it once" in m else ""},
    ),
    "misspelt tap": (in_lists, {"error_at": "heat"}, lambda m: {"error_at": _named(m, "behind the blocks:")}),
    "a list as tap": (in_lists, {"error_at": "layers"}, lambda m: {"error_at": _named(m, "behind the blocks:")}),
}


@pytest.mark.parametrize("name", ADVICE)
def test_advice_trains_when_followed(name: str) -> None:
    build, settings, follow = ADVICE[name]
    model = build()
    with pytest.raises(MatchError) as refused:
        DFA(model, **{key: value(model) if callable(value) else value for key, value in settings.items()})
    assert not model._forward_hooks
    assert "\n" not in str(refused.value)
    assert trained(build, **follow(str(refused.value))) < 2 * by_default(build) + 0.02


def test_a_layer_alone_has_no_blocks_until_a_head_is_put_behind_it() -> None:
    with pytest.raises(MatchError, match=re.escape("put a head behind the model, nn.Sequential(model, head)")):
        DFA(nn.Linear(D, D))
    assert trained(lambda: nn.Sequential(nn.Linear(D, D), nn.Linear(D, 3))) < 0.05


def test_branches_are_modules_that_are_called() -> None:
    model = chain(layers=nn.ModuleList(wrap(nn.ModuleList(pairs()), "inner") for _ in range(2)), head=nn.Linear(D, 3))
    with pytest.raises(MatchError, match="inner is a ModuleList, which is never called itself") as refused:
        DFA(model, "layers.*", branches="layers.*.inner")
    assert list(DFA(model, "layers.*", branches=_written(str(refused.value))).branches) == [
        f"layers.{i}.inner.{j}" for i in range(2) for j in range(2)
    ]


def test_lists_that_hold_no_weights() -> None:
    model = chain(layers=nn.ModuleList(pairs()), activations=nn.ModuleList([nn.Tanh()]), head=nn.Linear(D, 3))
    with pytest.raises(MatchError, match="holds no module with weights"):
        DFA(model, "activations")


def test_a_head_fed_at_random_would_not_pass_for_trained() -> None:
    """What the bound of the test above is worth."""

    def build() -> nn.Module:
        return Own(lambda model, x: 1 * model.net(x), net=mlp())

    right, backpropagation = trained(build), trained(build, by_backpropagation=True)
    assert trained(build, blocks=["net.1", "net.3", "net.4"], error_at="output") > 2 * right + 0.02
    assert right < backpropagation + 0.05
