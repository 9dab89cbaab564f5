"""Where the projected error enters and what it is worth: the learning rules and their controls."""

from odfa.engine.rules.aligned_readout import AlignedReadout
from odfa.engine.rules.base import AbstractFeedback, AbstractRule, Call
from odfa.engine.rules.electronic_only import ElectronicOnly
from odfa.engine.rules.exact_readout import ExactReadout
from odfa.engine.rules.random_feedback import RandomFeedback
from odfa.engine.rules.shallow import Shallow

__all__ = [
    "AbstractFeedback",
    "AbstractRule",
    "AlignedReadout",
    "Call",
    "ElectronicOnly",
    "ExactReadout",
    "RandomFeedback",
    "Shallow",
]
