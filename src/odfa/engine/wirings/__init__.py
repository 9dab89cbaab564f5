"""How signals get from the tap to the blocks, one file each."""

from odfa.engine.wirings.base import AbstractWiring, Arrival, Brings
from odfa.engine.wirings.crossing import Crossing, Graphs, on_devices
from odfa.engine.wirings.direct import Direct
from odfa.engine.wirings.none import Unfed
from odfa.engine.wirings.residual import Residual

__all__ = ["AbstractWiring", "Arrival", "Brings", "Crossing", "Direct", "Graphs", "Residual", "Unfed", "on_devices"]
