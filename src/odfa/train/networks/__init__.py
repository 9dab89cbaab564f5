"""Networks of the recipes: a table from settings to builders. A new network is one more row."""

from typing import Any

from odfa.data import DataShape
from odfa.train.config import AnyModel, CnnConfig, DitConfig, MlpConfig, TransformerConfig, UnetConfig, VitConfig
from odfa.train.networks.base import AbstractNetwork
from odfa.train.networks.cnn import CnnNetwork
from odfa.train.networks.denoiser import Denoiser, DitNetwork, UnetNetwork
from odfa.train.networks.mlp import Mlp, MlpNetwork
from odfa.train.networks.transformer import TransformerNetwork
from odfa.train.networks.vit import VitNetwork

__all__ = ["AbstractNetwork", "Denoiser", "Mlp", "network_of"]

_NETWORKS: dict[type, type[AbstractNetwork[Any]]] = {
    CnnConfig: CnnNetwork,
    MlpConfig: MlpNetwork,
    TransformerConfig: TransformerNetwork,
    VitConfig: VitNetwork,
    DitConfig: DitNetwork,
    UnetConfig: UnetNetwork,
}


def network_of(config: AnyModel, shape: DataShape) -> AbstractNetwork[Any]:
    """The network of these settings for data of that shape.

    Raises:
        ConfigError: it does not fit the data.
    """
    return _NETWORKS[type(config)](config, shape)
