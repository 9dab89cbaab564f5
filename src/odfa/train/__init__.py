"""Training: a config in, a run folder out."""

from odfa.train.build import Session, attach, build, build_model, correction_rank, learning_rate
from odfa.train.config import (
    ClimateConfig,
    DataConfig,
    FeedbackConfig,
    MemoryConfig,
    MlpConfig,
    OptimizerConfig,
    RunConfig,
    TextConfig,
    TransformerConfig,
    VitConfig,
)
from odfa.train.environment import environment
from odfa.train.folder import RunFolderLost
from odfa.train.interrupt import Interrupted
from odfa.train.load import LoadedRun, load_run
from odfa.train.loop import batches, resume, run, train_step
from odfa.train.networks import AbstractNetwork, Mlp, network_of
from odfa.train.plan import dry_run
from odfa.train.result import RunResult
from odfa.train.tasks import TASKS, AbstractTask, Metric, get_task

__all__ = [
    "TASKS",
    "AbstractNetwork",
    "AbstractTask",
    "ClimateConfig",
    "DataConfig",
    "FeedbackConfig",
    "Interrupted",
    "LoadedRun",
    "MemoryConfig",
    "Metric",
    "Mlp",
    "MlpConfig",
    "OptimizerConfig",
    "RunConfig",
    "RunFolderLost",
    "RunResult",
    "Session",
    "TextConfig",
    "TransformerConfig",
    "VitConfig",
    "attach",
    "batches",
    "build",
    "build_model",
    "correction_rank",
    "dry_run",
    "environment",
    "get_task",
    "learning_rate",
    "load_run",
    "network_of",
    "resume",
    "run",
    "train_step",
]
