"""Optimisers: one file for each, found by its settings class."""

from odfa.session.optimizers.adam import AdamSettings
from odfa.session.optimizers.base import Group, OptimizerSettings
from odfa.session.optimizers.muon import MuonSettings
from odfa.session.optimizers.sgd import SgdSettings

__all__ = ["AdamSettings", "Group", "MuonSettings", "OptimizerSettings", "SgdSettings"]
