"""Whether a forward pass can be read where it is to be read, and where else it could be."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from odfa.engine.handle import Handle
from odfa.engine.step import Step
from odfa.engine.tensors import map_tensors
from odfa.error import Tap
from odfa.errors import MatchError


def check_taps(taps: Iterable[Tap], blocks: Mapping[str, nn.Module]) -> None:
    """When a handle is attached.

    Raises:
        MatchError: a tap lies inside a block.
    """
    for tap in taps:
        for name, block in blocks.items():
            inside = any(child is tap.module for child in block.modules() if child is not block)
            if inside or (block is tap.module and tap.side == "input"):
                raise MatchError(f"the error is read at {tap}, inside block {name}; choose error_at behind the blocks")


def check_read(handle: Handle, step: Step, missed: bool, output: Any) -> None:
    """At the end of a forward pass; `missed`: blocks ran that no tap has answered for.

    Raises:
        MatchError: no tap ran, or a block ran behind all taps.
    """
    if not step.taps.ties:
        raise _unread(handle, step, output)
    if missed:
        raise MatchError(f"a block ran after {handle.tap}, where the error is read; choose error_at behind all blocks")


def _unread(handle: Handle, step: Step, output: Any) -> MatchError:
    """The error for a forward pass in which the module at the tap did not run, naming a place that did."""
    last = step.calls[-1].block if step.calls else handle.last_block
    heads = {id(p) for tap in handle.taps for p in tap.module.parameters()}
    place = _first_with_weights(handle.model, output, heads) or last
    taps = " and ".join(map(str, handle.taps))
    return MatchError(
        f"the error is read at {taps}, which did not run in this forward (a loss that uses a head's weight does "
        f"not call the head); read it at what ran last in front of it, error_at={place!r}"
    )


def _first_with_weights(model: nn.Module, output: Any, without: Collection[int]) -> str | None:
    """Name of the module whose weights, other than those `without`, come first on the way back from `output`.

    A loss may use the head's own weight without calling the head. None if no weights lie between blocks and output.
    """
    owners: dict[int, str] = {
        id(p): name for name, module in model.named_modules() if name for p in module.parameters(recurse=False)
    }
    tensors: list[Tensor] = []
    map_tensors(output, lambda t: tensors.append(t) or t)  # type: ignore[func-returns-value]
    todo: list[Node] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(todo)
    for node in todo:  # breadth first: the list grows while it is read
        variable = id(getattr(node, "variable", None))
        if variable in owners and variable not in without:
            return owners[variable]
        following = [node for node, _ in node.next_functions if node is not None and node not in seen]
        seen.update(following)
        todo.extend(following)
    return None
