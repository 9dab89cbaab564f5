"""What must not change around the blocks while a handle is attached."""

from torch import nn

from odfa.engine.handle import Handle
from odfa.errors import MatchError

_AGAIN = "call remove() on the handle, change the model, then attach again"


class Surroundings:
    """The modules that hold blocks and taps, with their children when the handle was attached.

    A block that is replaced loses its hooks, and one that is added never gets any: both would learn by backpropagation
    and nobody would say so.
    """

    def __init__(self, handle: Handle) -> None:
        names = {id(module): name for name, module in handle.model.named_modules()}
        watched = [*handle.blocks.values(), *handle.branches.values(), *(tap.module for tap in handle.taps)]
        inside = {id(module) for module in watched}
        self._parents: list[tuple[str, nn.Module, dict[str, nn.Module | None]]] = [
            (names[id(parent)], parent, dict(parent._modules))
            for parent in handle.model.modules()
            if any(id(child) in inside for child in parent._modules.values())
        ]

    def check(self) -> None:
        """Compare.

        Raises:
            MatchError: a child of a module that holds blocks or taps was added, replaced or taken away.
        """
        for name, parent, before in self._parents:
            now = parent._modules
            if now == before:
                continue
            prefix = f"{name}." if name else ""
            for key in [*before, *(key for key in now if key not in before)]:
                if now.get(key) is not before.get(key):
                    what = "added" if key not in before else "taken away" if key not in now else "replaced"
                    raise MatchError(
                        f"{prefix}{key} was {what} after DFA was attached, and would not learn as the rest; {_AGAIN}"
                    )
            raise MatchError(f"the children of {name or 'the model'} changed their order; {_AGAIN}")
