"""A small network, and what is checked of every rule on it: its weights by a naive reference, its state saved."""

import copy
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.engine import DFA
from odfa.engine.rules import AbstractRule
from odfa.project import Gaussian

RATE, BATCH, CLASSES = 0.3, 7, 3


class Reference(Protocol):
    """The same network in plain float64: weights and biases of its three layers."""

    w: list[Tensor]
    b: list[Tensor]

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step of SGD on a batch."""


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 6), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(6, CLASSES)).double()


def batches(number: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        x = torch.randn(BATCH, 5, dtype=torch.float64, generator=generator)
        yield x, torch.randint(0, CLASSES, (BATCH,), generator=generator)


def train(dfa: DFA, number: int = 4, *, skip: int = 0) -> None:
    optimizer = torch.optim.SGD(dfa.model.parameters(), lr=RATE)
    for x, y in list(batches(number))[skip:]:
        optimizer.zero_grad()
        dfa.targets(y)
        F.cross_entropy(dfa.model(x), y).backward()
        optimizer.step()


def check_formula(dfa: DFA, naive: Reference) -> None:
    """Four steps give the weights of the reference."""
    train(dfa)
    for x, y in batches(4):
        naive.step(x, y)
    for layer, module in enumerate([dfa.model[0][0], dfa.model[1][0], dfa.model[2]]):  # type: ignore[index]
        assert torch.allclose(module.weight, naive.w[layer], rtol=1e-12, atol=1e-15)
        assert torch.allclose(module.bias, naive.b[layer], rtol=1e-12, atol=1e-15)


def check_survives(rule: AbstractRule) -> None:
    """Four steps at once, or two, saved and loaded by a fresh handle, and two more: the same bits."""
    whole, first = net(), net()
    train(DFA(whole, rule=rule, projection=Gaussian(seed=2)))
    half = DFA(first, rule=rule, projection=Gaussian(seed=2))
    train(half, 2)
    second = net()
    second.load_state_dict(first.state_dict())
    again = DFA(second, rule=rule, projection=Gaussian(seed=2))
    again.load_state_dict(copy.deepcopy(half.state_dict()))
    train(again, skip=2)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
