"""How the weights move: one file per optimiser, discovered by its settings class."""

from odfa.session.optimizers.adam import AdamSettings
from odfa.session.optimizers.base import OptimizerSettings
from odfa.session.optimizers.sgd import SgdSettings

__all__ = ["AdamSettings", "OptimizerSettings", "SgdSettings"]
