"""Stage 6: direct feedback alignment on any module."""

from odfa.engine.alignment import Alignment
from odfa.engine.compiled import CompiledBlocks, compile_blocks
from odfa.engine.dfa import DFA
from odfa.engine.fused import FusedOptimizer, fuse_optimizer
from odfa.engine.linear_cross_entropy import LinearCrossEntropy
from odfa.engine.rules import (
    AbstractRule,
    AlignedHead,
    Backprop,
    Drtp,
    ElectronicOnly,
    ExactHead,
    ForwardGradient,
    KolenPollack,
    LowRankHead,
    RandomFeedback,
    Shallow,
)

__all__ = [
    "DFA",
    "AbstractRule",
    "AlignedHead",
    "Alignment",
    "Backprop",
    "CompiledBlocks",
    "Drtp",
    "ElectronicOnly",
    "ExactHead",
    "ForwardGradient",
    "FusedOptimizer",
    "KolenPollack",
    "LinearCrossEntropy",
    "LowRankHead",
    "RandomFeedback",
    "Shallow",
    "compile_blocks",
    "fuse_optimizer",
]
