"""What a run learns: each task is a folder with its data, networks, loss, metric and recipes.

A new one is a new folder here, or a module of another package (see `base.py` for what it has to say).
"""

from odfa.tasks.base import AbstractData, AbstractNetwork, AbstractTask, LimitedData, Metric, StackNetwork

__all__ = ["AbstractData", "AbstractNetwork", "AbstractTask", "LimitedData", "Metric", "StackNetwork"]
