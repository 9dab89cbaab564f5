"""The multilayer perceptron of the digits and fashion recipes."""

from itertools import pairwise

from torch import Tensor, nn

from odfa.train.config import MlpConfig
from odfa.train.networks.base import AbstractNetwork

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}


class Mlp(nn.Module):
    """y_NC = head(block_L(… block_1(x_ND))), each block a linear map followed by the activation."""

    def __init__(self, config: MlpConfig, *, num_features: int, num_classes: int) -> None:
        super().__init__()
        widths = (num_features, *config.widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), _ACTIVATIONS[config.activation]())
            for before, after in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Logits of shape (N, classes)."""
        hidden_NK = x_ND.to(self.head.weight.dtype)
        for block in self.blocks:
            hidden_NK = block(hidden_NK)
        logits_NC: Tensor = self.head(hidden_NK)
        return logits_NC


class MlpNetwork(AbstractNetwork[MlpConfig]):
    """One error row per sample, as wide as there are classes."""

    @property
    def num_outputs(self) -> int:
        """Classes."""
        return self.shape.num_classes

    def build(self) -> nn.Module:
        """The perceptron."""
        return Mlp(self.config, num_features=self.shape.num_features, num_classes=self.shape.num_classes)
