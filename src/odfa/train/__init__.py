"""Training: a config in, a run folder out."""

from odfa.train.attach import attach
from odfa.train.build import Session, build, build_model
from odfa.train.config import FeedbackSettings, MemorySettings, RunConfig
from odfa.train.environment import environment
from odfa.train.folder import RunFolderLost
from odfa.train.interrupt import Interrupted
from odfa.train.load import LoadedRun, load_run
from odfa.train.loop import batches, resume, run, train_step
from odfa.train.optimizers import AdamSettings, OptimizerSettings, SgdSettings
from odfa.train.plan import dry_run
from odfa.train.result import RunResult

__all__ = [
    "AdamSettings",
    "FeedbackSettings",
    "Interrupted",
    "LoadedRun",
    "MemorySettings",
    "OptimizerSettings",
    "RunConfig",
    "RunFolderLost",
    "RunResult",
    "Session",
    "SgdSettings",
    "attach",
    "batches",
    "build",
    "build_model",
    "dry_run",
    "environment",
    "load_run",
    "resume",
    "run",
    "train_step",
]
