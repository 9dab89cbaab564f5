"""Signals that cross blocks backwards: what the input of each block gets from a signal at its output."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from odfa.errors import MatchError


class Crossing(Protocol):
    """The blocks of one forward pass, in running order, as an execution can differentiate them."""

    @property
    def calls(self) -> int:
        """How many calls of blocks were fed."""
        ...

    def at_inputs(self, signals: Sequence[Tensor]) -> list[Tensor]:
        """The gradients at the inputs of calls 1 to the last, from one signal at the output of each call.

        Entry k - 1 is J_k^T signals[k], where J_k is the Jacobian of call k from its input to its output.
        """
        ...


class Graphs:
    """A crossing through graphs that are in memory; it keeps the graphs and none of the tensors."""

    def __init__(self, ends: Sequence[Tensor], begins: Sequence[Tensor]) -> None:
        """Take what each call returned, with its history, and what went on in its place, without it."""
        self.ends = [get_gradient_edge(end) for end in ends]
        # what went on from the last call leads to the head, not into a block
        self.begins = [get_gradient_edge(begin) for begin in begins[: len(ends) - 1]]
        self.places = [(end.device, end.dtype) for end in ends]

    @property
    def calls(self) -> int:
        """How many calls of blocks were fed."""
        return len(self.ends)

    def at_inputs(self, signals: Sequence[Tensor]) -> list[Tensor]:
        """One backward pass through all blocks; each is a graph of its own, so none waits for another.

        No gradient of a weight is computed, and the graphs stay for the pass in which the blocks learn.
        """
        given = [signal.to(*place) for signal, place in zip(signals[1:], self.places[1:], strict=True)]
        try:
            found = torch.autograd.grad(self.ends[1:], self.begins, given, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise MatchError(
                "hops take gradients at block inputs, which reentrant activation checkpointing inside a block refuses; "
                "use use_reentrant=False there, or DFA(recompute=True)"
            ) from error
        # a block that does not look at what came before it gives nothing back
        return [torch.zeros_like(s) if g is None else g for g, s in zip(found, signals[1:], strict=True)]


def on_devices(signals: Sequence[Tensor], devices: Iterable[torch.device]) -> list[Tensor]:
    """Each signal on its device; one that several calls there get is moved once, and is one tensor for all of them."""
    moved: dict[tuple[int, torch.device], Tensor] = {}
    pairs = list(zip(signals, devices, strict=True))
    for signal, device in pairs:
        if (id(signal), device) not in moved:
            moved[id(signal), device] = signal.to(device)
    return [moved[id(signal), device] for signal, device in pairs]


def hop(q: Tensor, signals: Sequence[Tensor], at_inputs: Sequence[Tensor], *, bare: bool) -> list[Tensor]:
    """One hop of credit: from the signals of all calls those of one order more.

        d'_l = q + sum over k > l of (J_k^T d_k - d_k)

    In a residual stream J_k = 1 + F_k', so each term is F_k'^T d_k: what call k does beyond handing its input on. With
    d = q for all to begin with, the first hop keeps every product of one F', and as many hops as there are calls behind
    the first keep all: d_l = J_{l+1}^T ... J_L^T q, which is backpropagation.

    Args:
        q: the signal at the last call's output.
        signals: d_l, one for each call.
        at_inputs: J_k^T d_k for the calls behind the first.
        bare: the last entry is F_k'^T d_k already, as the stream leads around the last block and joins it behind.
    """
    hopped, gathered = [q], q if bare else torch.zeros_like(q)
    for at_input, signal in zip(reversed(at_inputs), reversed(signals[1:]), strict=True):
        gathered = gathered + (at_input.to(q) - signal.to(q))
        hopped.insert(0, q + gathered)
    return hopped


def weighed(q: Tensor, signals: Sequence[Tensor], weight: float) -> Sequence[Tensor]:
    """What hops add to q, times a weight: q + weight (d_l - q); a weight of 1 changes no bit."""
    return signals if weight == 1 else [d if d is q else q + weight * (d - q) for d in signals]
