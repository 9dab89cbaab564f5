"""Finding and replacing tensors inside whatever a module returns."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

Hook = TypeVar("Hook", bound=Callable[..., Any])


def first_tensor(output: Any) -> Tensor | None:
    """The main tensor of a module's output: the first floating-point one, depth first; None if there is none."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((found for item in items if (found := first_tensor(item)) is not None), None)


def named_tensors(output: Any, path: str = "") -> list[tuple[str, Tensor]]:
    """Every floating-point tensor of a module's output with the keys that lead to it, such as "hidden_states[0]"."""
    if isinstance(output, Tensor):
        return [(path or "output", output)] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        items = [(f"{path}.{key}" if path else str(key), value) for key, value in output.items()]
    else:
        values = output if isinstance(output, (tuple, list)) else ()
        items = [(f"{path or 'output'}[{number}]", value) for number, value in enumerate(values)]
    return [found for name, value in items for found in named_tensors(value, name)]


def map_tensors(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested tuples, lists, mappings (ModelOutput too) with `change` applied to every tensor.

    A container is copied if something in it changed, and the same one otherwise: whoever fills it goes on filling it.
    Anything else (caches, None, numbers) is passed on as it is.
    """
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, Mapping):
        items = {key: map_tensors(value, change) for key, value in output.items()}
        return output if all(items[key] is value for key, value in output.items()) else _like(output, items)
    if isinstance(output, (tuple, list)):
        values = [map_tensors(item, change) for item in output]
        if all(new is old for new, old in zip(values, output, strict=True)):
            return output
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    return output


def _like(original: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(original) is dict:
        return items
    try:
        return type(original)(**items)  # ModelOutput and its kin are dataclasses
    except TypeError:
        return type(original)(items)  # type: ignore[call-arg]


def wide(tensor: Tensor) -> Tensor:
    """In float64; on the processor if the tensor's device has no such numbers."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Their entries one behind the other, in float64, where `wide` has the first."""
    flat = [wide(tensor.flatten()) for tensor in tensors]
    return torch.cat([one.to(flat[0].device) for one in flat])


def in_backward() -> bool:
    """True while autograd runs a backward pass: a forward seen then is a recomputation."""
    return bool(torch._C._current_graph_task_id() != -1)


def is_spread(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which each process holds a part."""
    distributed = sys.modules.get("torch.distributed.tensor")  # loading it takes long, and who has one has loaded it
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or what the processes that hold parts of it have together."""
    return tensor.full_tensor() if is_spread(tensor) else tensor  # type: ignore[attr-defined]


def eager(function: Hook) -> Hook:
    """A hook that `torch.compile` leaves to Python. `torch.compiler.disable` would load the compiler with odfa."""
    return cast(Hook, _disable_dynamo(function))
