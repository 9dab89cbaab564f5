"""Settings of runs, in parts: network, data, optimiser, memory, feedback, and the run that holds them."""

from odfa.train.config.data import AnyData, ClimateBenchConfig, ClimateConfig, DataConfig, TextConfig
from odfa.train.config.model import AnyModel, CnnConfig, DitConfig, MlpConfig, TransformerConfig, UnetConfig, VitConfig
from odfa.train.config.run import FeedbackConfig, MemoryConfig, Method, OptimizerConfig, RuleName, RunConfig

__all__ = [
    "AnyData",
    "AnyModel",
    "ClimateBenchConfig",
    "ClimateConfig",
    "CnnConfig",
    "DataConfig",
    "DitConfig",
    "FeedbackConfig",
    "MemoryConfig",
    "Method",
    "MlpConfig",
    "OptimizerConfig",
    "RuleName",
    "RunConfig",
    "TextConfig",
    "TransformerConfig",
    "UnetConfig",
    "VitConfig",
]
