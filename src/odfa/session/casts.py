"""What torch.autocast would cast, on the meta device, where torch has none: for counting bytes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_LOWER = frozenset(
    {
        *(functional.linear, functional.scaled_dot_product_attention, functional.bilinear),
        *(torch.conv1d, torch.conv2d, torch.conv3d, functional.conv1d, functional.conv2d, functional.conv3d),
        *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, torch.bmm, torch.addmm, torch.baddbmm),
    }
)
"""Computed in bfloat16."""
_HIGHER = frozenset({functional.layer_norm, functional.group_norm, functional.cross_entropy, functional.mse_loss})
"""Computed in float32, as NVIDIA's GPUs do; processors compute norms in the type that they are given."""


class Casting(TorchFunctionMode):
    """Within it, products take and give bfloat16, and norms and losses float32; all else keeps its type."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _LOWER:
            args, kwargs = _cast((args, kwargs), torch.float32, torch.bfloat16)
        elif func in _HIGHER:
            args, kwargs = _cast((args, kwargs), torch.bfloat16, torch.float32)
        return func(*args, **kwargs)


def _cast(values: Any, before: torch.dtype, after: torch.dtype) -> Any:
    return tree_map(lambda one: one.to(after) if isinstance(one, Tensor) and one.dtype == before else one, values)
