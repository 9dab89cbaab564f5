"""Stage 5: projected errors become one signal per block, placed and scaled."""

from odfa.feedback.drawn import of_drawn
from odfa.feedback.halves import projected
from odfa.feedback.low_rank import LowRank
from odfa.feedback.patterns import described, matches
from odfa.feedback.placement import Axes, Placement, place, possible_axes
from odfa.feedback.slots import Slots

__all__ = [
    "Axes",
    "LowRank",
    "Placement",
    "Slots",
    "described",
    "matches",
    "of_drawn",
    "place",
    "possible_axes",
    "projected",
]
