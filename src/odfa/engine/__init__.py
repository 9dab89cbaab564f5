"""Stage 6: direct feedback alignment on any module."""

from odfa.engine.alignment import Alignment
from odfa.engine.dfa import DFA
from odfa.engine.lean import FusedOptimizer, fuse_optimizer
from odfa.engine.rules import AbstractRule, AlignedReadout, ElectronicOnly, ExactReadout, RandomFeedback, Shallow

__all__ = [
    "DFA",
    "AbstractRule",
    "AlignedReadout",
    "Alignment",
    "ElectronicOnly",
    "ExactReadout",
    "FusedOptimizer",
    "RandomFeedback",
    "Shallow",
    "fuse_optimizer",
]
