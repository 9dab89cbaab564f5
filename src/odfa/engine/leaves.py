"""What goes on in place of a block's output, and of the model's input."""

from typing import Any

from torch import Tensor

from odfa.engine.gates import gate, mark
from odfa.engine.tensors import is_spread, named_tensors
from odfa.errors import MatchError


def main_of(name: str, output: Any) -> Tensor:
    """The main tensor of what block `name` returned: the first that asks for a gradient, the first where none does.

    Raises:
        MatchError: there is none, or each process holds a part of it.
    """
    tensors = [tensor for _, tensor in named_tensors(output)]
    main = next((tensor for tensor in tensors if tensor.requires_grad), next(iter(tensors), None))
    if main is None:
        raise MatchError(f"block {name} returned {type(output).__name__} without a floating-point tensor")
    if is_spread(main):
        raise MatchError(f"block {name} returned a DTensor, spread over processes; let it return its full_tensor()")
    return main


def asks(main: Tensor) -> bool:
    """Whether a block's output has to ask for a gradient, although that costs the next block's input gradient.

    Reentrant checkpointing builds a graph only for inputs that ask for one, and GroupNorm's backward (torch 2.13, CPU)
    crashes on channels-last inputs that do not.
    """
    channels_last = main.ndim > 3 and not main.is_contiguous()
    return channels_last or type(main.grad_fn).__name__ == "CheckpointFunctionBackward"


def leaf_of(main: Tensor, *, asking: bool = False) -> Tensor:
    """`main` without history. It asks for no gradient unless it has to, or is told to."""
    return handed_out(main.detach().requires_grad_()) if asking or asks(main) else main.detach()


def side_of(tensor: Tensor) -> Tensor:
    """A side output without history (skip connections, position biases), as it leads past the cut of the main one.

    It keeps asking for a gradient, because torch picks attention kernels by it and values must not change.
    """
    return handed_out(tensor.detach().requires_grad_()) if tensor.requires_grad else tensor


def handed_out(leaf: Tensor) -> Tensor:
    """What the next module gets for a leaf that asks for a gradient: in-place operations are refused on leaves.

    The gradient ends here: nobody reads the leaf's, which would only take memory.
    """
    return gate(leaf, [], lambda _grad: [None])


def guard_input(policy: str, tensor: Tensor) -> Tensor:
    """The model's input, so that no gradient leaves it that is not the true one."""
    if not tensor.requires_grad:
        return tensor
    if policy == "none":
        return tensor.detach()
    return mark(tensor, _refuse_input)


def _refuse_input(grad: Tensor | None) -> list[Tensor | None]:
    if grad is not None:
        raise MatchError(
            "the gradient of the model's input would be what the first block hands back of its signal, not the true "
            "one; for the true one run the model inside dfa.passthrough(), for none attach with input_gradient='none', "
            "and if what lies in front may learn from the first block's signal, with input_gradient='local'"
        )
    return [None]
