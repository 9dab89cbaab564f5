"""The multilayer perceptron of the digits and fashion recipes."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn

from odfa.data import DataShape
from odfa.settings import MAX_WIDTH, require
from odfa.tasks.base import AbstractNetwork

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}


class Mlp(nn.Module):
    """y_NC = head(block_L(… block_1(x_ND))), each block a linear map followed by the activation."""

    def __init__(self, widths: tuple[int, ...], activation: str, *, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), _ACTIVATIONS[activation]())
            for before, after in pairwise((num_features, *widths))
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Logits of shape (N, classes)."""
        hidden_NK = x_ND.to(self.head.weight.dtype)
        for block in self.blocks:
            hidden_NK = block(hidden_NK)
        logits_NC: Tensor = self.head(hidden_NK)
        return logits_NC


@dataclass(frozen=True, kw_only=True)
class MlpNetwork(AbstractNetwork, kind="mlp"):
    """A multilayer perceptron: one block (linear map and activation) per hidden width, then a linear head."""

    returns: ClassVar[frozenset[str]] = frozenset({"classes"})

    widths: tuple[int, ...] = (128, 128)
    """Widths of the hidden blocks, from input to output."""
    activation: Literal["tanh", "gelu", "relu"] = "tanh"
    """Non-linearity at the end of each block."""

    def __post_init__(self) -> None:
        fits = len(self.widths) > 0 and all(0 < width <= MAX_WIDTH for width in self.widths)
        require(fits, "widths", f"one or more positive widths up to {MAX_WIDTH}", self.widths)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last."""
        return tuple(f"blocks.{k}" for k in range(len(self.widths)))

    def num_outputs(self, shape: DataShape) -> int:
        """Classes: one error row per sample."""
        return shape.num_classes

    def build(self, shape: DataShape) -> nn.Module:
        """A multilayer perceptron from the pixels, or other features, to the classes."""
        return Mlp(self.widths, self.activation, num_features=shape.num_features, num_classes=shape.num_classes)
