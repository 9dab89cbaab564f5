"""Stage 5: projected errors become one signal per block, placed and scaled."""

from odfa.feedback.low_rank import LowRank
from odfa.feedback.patterns import matches
from odfa.feedback.placement import Placement, place
from odfa.feedback.slots import Slots

__all__ = ["LowRank", "Placement", "Slots", "matches", "place"]
