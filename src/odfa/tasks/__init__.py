"""Tasks: each is a folder with its data, networks, loss, metric and recipes.

A new task is a new folder here, or a module of another package; `base.py` has the classes that it must implement.
"""

from odfa.tasks.base import (
    AbstractData,
    AbstractNetwork,
    AbstractTask,
    LimitedData,
    LossModel,
    Metric,
    StackNetwork,
)

__all__ = ["AbstractData", "AbstractNetwork", "AbstractTask", "LimitedData", "LossModel", "Metric", "StackNetwork"]
