"""Cuts inside compiled blocks: hooks that torch traces, so that they become a part of the compiled code."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from odfa.engine.handle import Handle
from odfa.engine.tensors import first_tensor, map_tensors
from odfa.errors import MatchError

EagerHook = Callable[[nn.Module, tuple[Any, ...]], Any]


class Branches:
    """Hooks in front of modules where a branch of the residual stream begins.

    Where nothing is compiled, and where compiled blocks run as they are, `eager` does the work.
    """

    def __init__(self, handle: Handle, eager: EagerHook) -> None:
        self._handle, self._eager = handle, eager
        self._crossed = handle.rule.crossings > 0
        self._crossing: dict[torch.device, Tensor] = {}

    def attach(self) -> list[RemovableHandle]:
        """Register the hooks, before those of others."""
        hook = self._eager if self._handle.compiled is None else self._before
        return [module.register_forward_pre_hook(hook, prepend=True) for module in self._handle.branches.values()]

    def crossing(self) -> Mapping[torch.device, Tensor]:
        """Where signals may cross compiled blocks: on each device of the blocks a flag for whether they do now.

        A flag is an input of the compiled code. It is written without a change of its version, as a tensor that is
        saved for backward must not seem to change.
        """
        if self._handle.compiled is not None and self._crossed and self._handle.branches:
            for block in self._handle.blocks.values():
                for device in {parameter.device for parameter in block.parameters()} - self._crossing.keys():
                    self._crossing[device] = torch.zeros((), dtype=torch.bool, device=device)
        return self._crossing

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        if not torch.compiler.is_compiling():
            return self._eager(module, args)
        if not torch.is_grad_enabled() or self._handle.mode == "through":
            return None
        value = first_tensor(args)
        if value is None:
            raise MatchError(f"{type(module).__name__} was called without a positional tensor and cannot be a branch")
        cut = self._cut(value)
        return map_tensors(args, lambda t: cut if t is value else t)

    def _cut(self, value: Tensor) -> Tensor:
        if not value.requires_grad:
            return value
        if self._crossed:
            crossed: Tensor = _Crossed.apply(value, self._crossing[value.device])  # type: ignore[no-untyped-call]
            return crossed
        if value.ndim > 3 and not value.is_contiguous():  # see `leaves.asks`
            ended: Tensor = _Ended.apply(value)  # type: ignore[no-untyped-call]
            return ended
        return value.detach()


class _Crossed(torch.autograd.Function):
    """`value`; its gradient is handed on while signals cross the block, and zero otherwise."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, crossing: Tensor) -> Tensor:
        ctx.save_for_backward(crossing)
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (crossing,) = ctx.saved_tensors
        return torch.where(crossing, grad, torch.zeros_like(grad)), None


class _Ended(torch.autograd.Function):
    """`value`, which asks for a gradient and hands none on."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)
