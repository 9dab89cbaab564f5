"""The settings of a run, and what is built from them: data, model, DFA handle and optimiser."""

from odfa.session.assembly import Session, build, build_model
from odfa.session.config import FeedbackSettings, MemorySettings, RunConfig
from odfa.session.handle import attach
from odfa.session.optimizers import AdamSettings, MuonSettings, OptimizerSettings, SgdSettings
from odfa.session.plan import dry_run

__all__ = [
    "AdamSettings",
    "FeedbackSettings",
    "MemorySettings",
    "MuonSettings",
    "OptimizerSettings",
    "RunConfig",
    "Session",
    "SgdSettings",
    "attach",
    "build",
    "build_model",
    "dry_run",
]
