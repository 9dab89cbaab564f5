"""What blocks receive and return, kept until backward for the rules that need it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from odfa.engine.calls import Call, Kept
from odfa.engine.rules import AbstractRule
from odfa.engine.tensors import first_tensor, map_tensors
from odfa.errors import MatchError


class KeptTensors:
    """Makes the records of calls. Without such a rule nothing is kept, so that activations are freed as ever."""

    def __init__(self, rule: AbstractRule) -> None:
        self._keeps_inputs = "block input" in rule.needs
        self._keeps_outputs = "block output" in rule.needs
        self._received: dict[str, Kept] = {}
        """By block, from the time a block is called until it has returned."""

    def receive(self, block: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A block is called: afterwards it may have changed what it received.

        Raises:
            MatchError: it receives no tensor.
        """
        if not self._keeps_inputs:
            return
        received = first_tensor([args, kwargs])
        if received is None:
            received = _first_of_any_type([args, kwargs])
        if received is None:
            raise MatchError(f"block {block} received no tensor, and the rule needs its input; choose other blocks")
        self._received[block] = _as_kept(received)

    def call(self, block: str, main: Tensor, *, deferred: bool) -> Call:
        """The record of a block that has returned `main`."""
        return Call(
            block,
            tuple(main.shape),
            main.dtype,
            main.device,
            deferred,
            kept_input=self._received.pop(block, None),
            kept_output=_as_kept(main) if self._keeps_outputs else None,
        )


def _as_kept(tensor: Tensor) -> Kept:
    return Kept(tensor.detach(), tensor._version)


def _first_of_any_type(arguments: list[Any]) -> torch.Tensor | None:
    """Token numbers, for a block that begins with an embedding."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(arguments, note)
    return next(iter(found), None)
