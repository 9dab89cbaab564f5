"""Gradients of a norm's scale and shift without the matrix product that autograd spends on them.

A block that learns by direct feedback hands no gradient to its input. All that the input gradient of its first linear
layers is then needed for is the norm in front of them: its scale and shift. Both follow, exactly, from the gradients of
those layers' own weights.
"""

import copy
import weakref
from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from odfa.engine.layers import LayerHooks, Layout, layout_of, weight_gradient
from odfa.engine.tensors import is_spread


class NormReaders(LayerHooks[tuple[Tensor, Any]]):
    """Hooks on norms and on the linear layers that read them; they act where nothing before the norm wants a gradient.

    They do not act where a norm's scale is spread over processes.

    A layer y = W h + b that reads h = gamma * n + beta has the weight gradients G = sum delta h^T, g = sum delta. Then
        dL/dgamma_k = sum_o W_ok (G_ok - g_o beta_k) / gamma_k,        dL/dbeta_k = sum_o W_ok g_o.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], *, without: Container[nn.Module] = (), compiled: bool = False
    ) -> None:
        super().__init__()
        self.compiled = compiled
        modules = {id(module): module for block in blocks for module in block.modules()}.values()
        self._norms = {module: type(module) for module in modules if _scales(module)}
        layers = [module for module in modules if layout_of(module) is not None and module not in without]
        self._layers = layers if self._norms else []
        self._latest: tuple[weakref.ref[Tensor], nn.Module] | None = None
        self._traced: tuple[Tensor, nn.Module] | None = None
        """The same while a compiled block is traced."""
        self._usable = False

    def attach(self) -> list[RemovableHandle]:
        """Register the hooks on norms and on the layers that may read them."""
        hooks = [norm.register_forward_hook(self._after_norm) for norm in self._norms]
        return hooks + [hook for layer in self._layers for hook in self.hook(layer)]

    def begin(self) -> None:
        """Forget the last pass; the formula divides by the scales, so that none of them may be zero in the next."""
        super().begin()
        scales: Any = [norm.weight for norm in self._norms]
        self._latest = None
        known = [scale for scale in scales if not scale.is_meta]  # meta tensors have no values
        if any(is_spread(scale) for scale in scales) or (self.compiled and self._changed()):
            self._usable = False
            return
        nonzero = not known or bool(torch.stack([scale.all().to(known[0].device) for scale in known]).all())
        self._usable = bool(scales) and nonzero

    def takes(self, layer: Any, x: Tensor) -> tuple[Tensor, Any] | None:
        """The norm's output, without history, and the norm."""
        if self._latest is None or not layer.weight.requires_grad:
            return None
        output, norm = self._latest
        return (x.detach(), norm) if output() is x else None

    def node(self, layer: Any, needed: tuple[Tensor, Any], output: Tensor) -> Tensor:
        """The layer's output, tied to its parameters and to the norm's."""
        h, norm = needed
        parameters = (layer.weight, layer.bias, norm.weight, getattr(norm, "bias", None))
        tied: Tensor = _Reader.apply(output, h, *parameters, layout_of(layer))  # type: ignore[no-untyped-call]
        return tied

    def inside(self, layer: Any, x: Tensor, output: Tensor) -> Tensor | None:
        """The same in compiled code, under autocast too."""
        if self._traced is None or not layer.weight.requires_grad:
            return None
        h, norm = self._traced
        if h is not x:
            return None
        parameters = (layer.weight, layer.bias, norm.weight, getattr(norm, "bias", None))
        tied: Tensor = _ReaderInside.apply(output, h.detach(), *parameters, layout_of(layer))  # type: ignore[no-untyped-call]
        return tied

    def forget(self) -> None:
        """The last line of compiled code: what it has set here would be one of its results."""
        self._traced = None

    def _changed(self) -> bool:
        """Whether a norm has another type than it had, or a layer hooks of others: compiled code does not look."""
        hooked = any((len(layer._forward_pre_hooks), len(layer._forward_hooks)) != (0, 1) for layer in self._layers)
        return hooked or any(type(norm) is not kind for norm, kind in self._norms.items())

    def _after_norm(self, norm: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not (self._usable and torch.is_grad_enabled()):
            return
        inputs = [arg for arg in args if isinstance(arg, Tensor)]
        if torch.compiler.is_compiling():
            starts = self.compiled and len(inputs) == 1 and not inputs[0].requires_grad and output.requires_grad
            self._traced = (output, norm) if starts else None
            return
        same = type(norm) is self._norms[norm]  # sharding by itself gives a norm another type, and frees its scale
        starts = same and len(inputs) == 1 and not inputs[0].requires_grad and output.requires_grad
        self._latest = (weakref.ref(output), norm) if starts else None


class _Reader(torch.autograd.Function):
    """What a linear layer computed, with the gradients of its own parameters and of the norm that it reads."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        h: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor | None,
        layout: Layout,
    ) -> Tensor:
        ctx.save_for_backward(h, weight, gamma, beta)
        ctx.has_bias, ctx.layout = bias is not None, layout
        return output.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, gamma, beta = ctx.saved_tensors
        found = _gradients(delta, h, weight, gamma, beta, ctx.layout, has_bias=ctx.has_bias)
        return None, None, *found, None


class _ReaderInside(torch.autograd.Function):
    """The same for code that torch compiles. Under autocast products are in the type of what the layer returned."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        h: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor | None,
        layout: Layout,
    ) -> Tensor:
        ctx.save_for_backward(h, weight, gamma, beta)
        ctx.has_bias, ctx.layout = bias is not None, layout
        return output.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, gamma, beta = ctx.saved_tensors
        found = _gradients(delta, h.to(delta.dtype), weight, gamma, beta, ctx.layout, has_bias=ctx.has_bias)
        return None, None, *found, None


def _gradients(
    delta: Tensor, h: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor | None, layout: Layout, *, has_bias: bool
) -> tuple[Tensor | None, ...]:
    """Of a layer's weight and bias, and of the scale and shift of the norm that it reads."""
    delta_NO, h_NI = delta.flatten(0, -2), h.flatten(0, -2)
    outputs, w_OI = (0, weight) if layout == "outputs x inputs" else (1, weight.T)
    grad = weight_gradient(layout, delta_NO, h_NI).to(weight.dtype)
    g_O = delta_NO.sum(0).to(weight.dtype) if has_bias or beta is not None else None
    scaled_I, beta_grad_I = (weight * grad).sum(outputs), None
    if g_O is not None and beta is not None:
        beta_grad_I = g_O @ w_OI
        scaled_I = scaled_I - beta_grad_I * beta
    return grad, g_O if has_bias else None, scaled_I / gamma, beta_grad_I


def _scales(module: nn.Module) -> bool:
    """Whether a module normalises over the last dimension and then multiplies by its weight."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 1:
        return False
    if type(module) in (nn.LayerNorm, nn.RMSNorm):
        return True
    return type(module).__name__.endswith("RMSNorm") and _multiplies(module, weight)


def _multiplies(norm: nn.Module, weight: Tensor) -> bool:
    """Looked up on a copy: some RMS norms of transformers multiply by 1 + weight."""
    probe: Any = copy.deepcopy(norm)
    if weight.is_meta:
        probe, weight = probe.to_empty(device="cpu"), weight.new_empty(len(weight), device="cpu")
    x_D = torch.linspace(-1, 2, len(weight)).to(weight)
    scale_D = torch.linspace(0.5, 1.5, len(weight)).to(weight)
    with torch.no_grad():
        probe.weight.fill_(1.0)
        n_D = probe(x_D[None])
        probe.weight.copy_(scale_D)
        return torch.allclose(probe(x_D[None]), scale_D * n_D, rtol=2e-2)
