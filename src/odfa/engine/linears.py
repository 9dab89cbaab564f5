"""Feedback per linear layer: the mean of the layers' weights where backpropagation uses the weights of each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from odfa.engine.layers import LayerHooks, Layout, layout_of, weight_gradient
from odfa.engine.products import Products, times
from odfa.engine.tensors import is_spread
from odfa.errors import MatchError

Shape = tuple[int, ...]


class LinearFeedback(LayerHooks[Tensor]):
    """A layer's input gets M^T delta instead of W^T delta; M is the mean weight, now, of all layers of its shape.

    In residual wiring every branch ends in the same signal, so that M^T delta is one product for all layers of a shape:
    of L products L - 1 are saved. Attaching sets all layers of a shape to the weights of the first, which M then stays
    close to.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        """Look at the layers; nothing is changed yet.

        Raises:
            MatchError: not a linear layer, or one whose weight is spread over processes.
        """
        super().__init__()
        for name, layer in layers.items():
            if layout_of(layer) is None:
                raise MatchError(f"{name} is a {type(layer).__name__}, expected a linear layer")
            if any(map(is_spread, layer.parameters())):
                raise MatchError(f"{name} holds a DTensor, a part of its weight; attach without linears=")
        self.layers = layers
        self.exact = False
        self._mean: dict[tuple[Shape, torch.device], Tensor] = {}
        self.products = Products()

    def _hand_in(self) -> None:
        """Before a pass of compiled blocks: their code gets the mean weights as tensors and computes none itself."""
        if not self.compiled:
            return
        for layer, weight in zip(self.layers.values(), self._weights(), strict=True):
            why = self.unusual(layer, weight)
            if why:
                self.cannot_take(why)
            self._mean_at(weight)

    def share_compiled(self) -> Callable[[Tensor], None] | None:
        """Compiled code shares products, too; what is to be called with the gradients that it is about to get."""
        if not self.layers:
            return None
        from odfa.engine.product_operation import OpaqueProducts

        self.products = OpaqueProducts()
        return self.products.arrives

    def attach(self) -> list[RemovableHandle]:
        """Set all layers of a shape to one start and register the hooks."""
        starts: dict[Shape, Tensor] = {}
        with torch.no_grad():
            for weight in self._weights():
                weight.copy_(starts.setdefault(tuple(weight.shape), weight))
        return [hook for layer in self.layers.values() for hook in self.hook(layer)]

    def begin(self) -> None:
        """Forget the last pass, its mean weights and its products; compiled blocks get those of the next.

        Raises:
            MatchError: blocks are compiled, and a layer has other hooks, or autocast is on.
        """
        super().begin()
        self._mean.clear()
        self.products.forget()
        self._hand_in()

    @contextmanager
    def true_gradients(self) -> Iterator[None]:
        """Inside, each layer's own weights are used, as in backpropagation."""
        self.exact = True
        try:
            yield
        finally:
            self.exact = False

    def takes(self, _layer: Any, x: Tensor) -> Tensor | None:
        """The input, if it wants a gradient."""
        return x if x.requires_grad and not self.exact else None

    def cannot_take(self, why: str) -> None:
        """Its input would get W^T delta, as in backpropagation, and the rule would silently be another one.

        Raises:
            MatchError: always.
        """
        raise MatchError(f"feedback per linear layer does not work with {why}; attach without linears=")

    def node(self, layer: Any, x: Tensor, output: Tensor) -> Tensor:
        """The layer's output, tied to its parameters and its input."""
        tied: Tensor = _Fed.apply(output, x, layer.weight, layer.bias, self, layout_of(layer))  # type: ignore[no-untyped-call]
        return tied

    def at_input(self, weight: Tensor, layout: Layout, delta_NO: Tensor) -> Tensor:
        """M^T delta for every row, (N, inputs).

        All layers of a shape ask for the same product if their delta is the same tensor, as in residual wiring; the
        last one is therefore kept.
        """
        if self.exact:
            return times(delta_NO, weight, layout)
        return self.products.once(delta_NO, self._mean_at(weight), layout)

    def inside(self, layer: Any, x: Tensor, output: Tensor) -> Tensor | None:
        """The same in compiled code, where one operation finds out whether the product is there."""
        if not x.requires_grad or self.exact:
            return None
        mean = self._mean[tuple(layer.weight.shape), layer.weight.device]
        tied: Tensor = _FedInside.apply(output, x, layer.weight, layer.bias, mean, layout_of(layer), self.products)  # type: ignore[no-untyped-call]
        return tied

    def _mean_at(self, weight: Tensor) -> Tensor:
        """The mean of all weights of this one's shape, on its device."""
        shape, device = tuple(weight.shape), weight.device
        if (shape, device) not in self._mean:  # fused updates move the weights during backward: once, before the first
            alike = [other for other in self._weights() if other.shape == shape]
            mean = _mean(alike)
            self._mean |= {(shape, there): mean.to(there) for there in {other.device for other in alike}}
        return self._mean[shape, device]

    def _weights(self) -> Iterator[Tensor]:
        layers: Any = self.layers.values()
        return (layer.weight for layer in layers)


def _mean(weights: list[Tensor]) -> Tensor:
    """Summed one by one: no copy of all of them."""
    total = torch.zeros_like(weights[0])
    for weight in weights:
        total += weight.detach().to(total.device)
    return total / len(weights)


class _Fed(torch.autograd.Function):
    """What a linear layer computed, with the exact gradients of its parameters and a fed one for its input."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: LinearFeedback,
        layout: Layout,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.feedback, ctx.layout = bias is not None, feedback, layout
        return output.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        delta_NO, x_NI = delta.flatten(0, -2), x.flatten(0, -2)
        at_input = ctx.feedback.at_input(weight, ctx.layout, delta_NO).reshape(x.shape)
        grad = weight_gradient(ctx.layout, delta_NO, x_NI) if ctx.needs_input_grad[2] else None
        return None, at_input, grad, delta_NO.sum(0) if ctx.has_bias else None, None, None


class _FedInside(torch.autograd.Function):
    """The same for code that torch compiles: the mean weight is given, and the product is one operation."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        layout: Layout,
        products: Products,
    ) -> Tensor:
        ctx.save_for_backward(x, mean)
        ctx.has_bias, ctx.layout, ctx.products = bias is not None, layout, products
        return output.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, mean = ctx.saved_tensors
        delta_NO, x_NI = delta.flatten(0, -2), x.flatten(0, -2)
        at_input = torch.ops.odfa.product(delta_NO, mean, ctx.layout, ctx.products).reshape(x.shape)
        grad = weight_gradient(ctx.layout, delta_NO, x_NI)
        return None, at_input, grad, delta_NO.sum(0) if ctx.has_bias else None, None, None, None
