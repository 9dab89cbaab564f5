"""Where the projected error enters and what it is worth: the learning rules and their controls, one file each."""

from odfa.engine.calls import Call
from odfa.engine.rules.aligned_head import AlignedHead
from odfa.engine.rules.backprop import Backprop
from odfa.engine.rules.base import AbstractFeedback, AbstractRule
from odfa.engine.rules.drtp import Drtp
from odfa.engine.rules.electronic_only import ElectronicOnly
from odfa.engine.rules.exact_head import ExactHead
from odfa.engine.rules.forward_gradient import ForwardGradient
from odfa.engine.rules.kolen_pollack import KolenPollack
from odfa.engine.rules.low_rank_head import LowRankHead
from odfa.engine.rules.random_feedback import RandomFeedback
from odfa.engine.rules.shallow import Shallow

__all__ = [
    "AbstractFeedback",
    "AbstractRule",
    "AlignedHead",
    "Backprop",
    "Call",
    "Drtp",
    "ElectronicOnly",
    "ExactHead",
    "ForwardGradient",
    "KolenPollack",
    "LowRankHead",
    "RandomFeedback",
    "Shallow",
]
