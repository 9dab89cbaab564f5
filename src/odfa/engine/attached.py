"""Which handle a module belongs to."""

from torch import nn

from odfa.engine.handle import Handle
from odfa.engine.hooks import Hooks
from odfa.errors import MatchError


def handle_of(model: nn.Module) -> Handle | None:
    """The handle attached to `model` itself, if any."""
    return next((owner.handle for hook in model._forward_pre_hooks.values() if (owner := _owner(hook))), None)


def refuse_second_handle(model: nn.Module) -> None:
    """Two handles on one forward pass would cut each other's graphs.

    Raises:
        MatchError: a module of `model`, or one that holds it, carries a handle.
    """
    for name, module in model.named_modules():
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        owner = next((owner for hook in hooks if (owner := _owner(hook))), None)
        if owner is not None:
            where = f"its module {name}" if name else "it"
            raise MatchError(
                f"DFA is already attached to this model ({where} belongs to the handle of a "
                f"{type(owner.handle.model).__name__}); call remove() on that handle first"
            )


def _owner(hook: object) -> Hooks | None:
    """Hooks are methods, or partial ones."""
    owner = getattr(getattr(hook, "func", hook), "__self__", None)
    return owner if isinstance(owner, Hooks) else None
