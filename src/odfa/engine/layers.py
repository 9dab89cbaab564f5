"""Linear layers that run as they are, with a node of ours in the graph in place of autograd's."""

from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from odfa.engine.grad_mode import resume_recording, stop_recording
from odfa.engine.transforms import in_transform

Layout = Literal["outputs x inputs", "inputs x outputs"]
Needed = TypeVar("Needed")
"""What a kind of hooks keeps of a call from before a layer runs to when its node is made."""


def layout_of(layer: nn.Module) -> Layout | None:
    """Layout of a linear layer's weight; None for other modules. Conv1D is what transformers calls GPT-2's layers."""
    if type(layer) is nn.Linear:
        return "outputs x inputs"
    return "inputs x outputs" if type(layer).__name__ == "Conv1D" and not isinstance(layer, nn.Conv1d) else None


def weight_gradient(layout: Layout, delta_NO: Tensor, x_NI: Tensor) -> Tensor:
    """Sum over rows of delta x^T, in the weight's layout."""
    return delta_NO.T @ x_NI if layout == "outputs x inputs" else x_NI.T @ delta_NO


class LayerHooks(ABC, Generic[Needed]):
    """Hooks on linear layers: where `takes` says so, a layer runs without a graph, and `node` makes one behind it."""

    def __init__(self) -> None:
        self._running: Needed | None = None
        self.compiled = False
        """The layers run in compiled code of ours, which then holds the node, too."""

    def begin(self) -> None:
        """A recorded forward pass begins: what an interrupted one left is forgotten."""
        self._running = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy knows nothing of the step in progress."""
        self.begin()
        return self.__dict__

    @abstractmethod
    def takes(self, layer: Any, x: Tensor) -> Needed | None:
        """What `node` will need of this call; None: the layer runs as it is, and autograd differentiates it."""

    @abstractmethod
    def node(self, layer: Any, needed: Needed, output: Tensor) -> Tensor:
        """`output`, tied to the layer's parameters and whatever else learns from it."""

    @abstractmethod
    def inside(self, layer: Any, x: Tensor, output: Tensor) -> Tensor | None:
        """In compiled code: what `takes` and `node` do, as torch can trace it; `output` has no history."""

    def cannot_take(self, _why: str) -> None:
        """`takes` asked for a call that cannot run without a graph, so the layer runs as it is, by autograd."""

    def hook(self, layer: nn.Module) -> list[RemovableHandle]:
        """Register the two hooks on one layer; the second one also runs when the layer fails.

        Compiled code has one behind the layer: torch would look at what always runs once for each layer.
        """
        if self.compiled:
            return [layer.register_forward_hook(self._behind)]
        before = layer.register_forward_pre_hook(self._before)
        return [before, layer.register_forward_hook(self._after, always_call=True)]

    def _before(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        if not torch.is_grad_enabled() or not args or not isinstance(args[0], Tensor):
            return
        needed = self.takes(layer, args[0])
        if needed is None:
            return
        why = self.unusual(layer, args[0])
        if why:
            self.cannot_take(why)
            return
        self._running = needed
        stop_recording()  # until `_after`; a layer that fails comes there, too

    def _after(self, layer: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        if self._running is None:
            return None
        needed, self._running = self._running, None
        resume_recording()
        return None if output is None else self.node(layer, needed, output)  # None: the layer failed

    def _behind(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Compiled, or run as it is: the layer has built a graph, in whose place comes the node."""
        if not torch.is_grad_enabled() or not args or not isinstance(args[0], Tensor):
            return None
        if torch.compiler.is_compiling():
            return self.inside(layer, args[0], output.detach())
        needed = self.takes(layer, args[0])
        if needed is None:
            return None
        why = self.unusual(layer, args[0])
        if why:
            self.cannot_take(why)
            return None
        return self.node(layer, needed, output.detach())

    def unusual(self, layer: nn.Module, x: Tensor) -> str:
        """Why a layer cannot run without a graph; empty if it can."""
        if torch.compiler.is_compiling():
            return "compiled code"
        if in_transform():
            return "torch.func transforms"
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):
            return "autocast"
        hooks = len(layer._forward_pre_hooks), len(layer._forward_hooks)
        return "" if hooks == (0 if self.compiled else 1, 1) else "a layer with other hooks"
