"""Function transforms of torch: they differentiate by themselves, without the backward pass that feedback enters in."""

import torch
from torch.autograd import forward_ad

from odfa.errors import MatchError


def in_transform() -> bool:
    """True inside `torch.func` transforms (grad, vmap, jvp, …) and forward-mode differentiation."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def refuse_transforms() -> None:
    """Refuse to train inside a transform.

    Raises:
        MatchError: inside a transform.
    """
    if in_transform():
        raise MatchError(
            "a model with DFA attached cannot be trained inside torch.func transforms (grad, vmap, jvp) or "
            "forward-mode differentiation; use loss.backward(), or dfa.passthrough() around it for the true gradient"
        )
