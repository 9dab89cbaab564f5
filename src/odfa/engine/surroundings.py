"""What must not change around the blocks while a handle is attached."""

from torch import nn

from odfa.engine.handle import Handle
from odfa.errors import MatchError

_AGAIN = "call remove() on the handle, change the model, then attach again"


class Surroundings:
    """The modules that hold blocks and taps, with their children when the handle was attached.

    Where blocks are held every child counts, farther up only those that hold blocks or taps.

    A block that is replaced loses its hooks, and one that is added never gets any: both would learn by backpropagation
    and nobody would say so.
    """

    def __init__(self, handle: Handle) -> None:
        watched = [*handle.blocks.values(), *handle.branches.values(), *(tap.module for tap in handle.taps)]
        ids, blocks = {id(module) for module in watched}, {id(block) for block in handle.blocks.values()}
        self._parents: list[tuple[str, nn.Module, set[str] | None, dict[str, nn.Module | None]]] = []
        for name, parent in handle.model.named_modules():
            children = {key: child for key, child in parent._modules.items() if child is not None}
            holding = {key for key, child in children.items() if any(id(m) in ids for m in child.modules())}
            whole = any(id(child) in blocks for child in children.values())
            if holding:
                self._parents.append((name, parent, None if whole else holding, dict(parent._modules)))

    def check(self) -> None:
        """Compare.

        Raises:
            MatchError: a child of a module that holds blocks or taps was added, replaced or taken away.
        """
        for name, parent, only, before in self._parents:
            now = parent._modules
            if now == before:
                continue
            prefix = f"{name}." if name else ""
            for key in [*before, *(key for key in now if key not in before)] if only is None else sorted(only):
                if now.get(key) is not before.get(key):
                    what = "added" if key not in before else "taken away" if key not in now else "replaced"
                    raise MatchError(
                        f"{prefix}{key} was {what} after DFA was attached, and would not learn as the rest; {_AGAIN}"
                    )
            if only is None:
                raise MatchError(f"the children of {name or 'the model'} changed their order; {_AGAIN}")
