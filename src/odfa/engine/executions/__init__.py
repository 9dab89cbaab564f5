"""How blocks run in a training forward pass, one file each."""

from odfa.engine.executions.base import AbstractExecution
from odfa.engine.executions.keep import Keep
from odfa.engine.executions.measure import Measure
from odfa.engine.executions.recompute import Recompute
from odfa.engine.executions.stream import Stream

__all__ = ["AbstractExecution", "Keep", "Measure", "Recompute", "Stream"]
