"""How the weights move: one file per optimiser, discovered by its settings class."""

from odfa.train.optimizers.adam import AdamSettings
from odfa.train.optimizers.base import OptimizerSettings
from odfa.train.optimizers.sgd import SgdSettings

__all__ = ["AdamSettings", "OptimizerSettings", "SgdSettings"]
