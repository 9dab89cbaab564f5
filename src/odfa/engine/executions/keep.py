"""Blocks run once and keep their activations."""

from odfa.engine.executions.base import AbstractExecution


class Keep(AbstractExecution):
    """Every block keeps its graph and activations until backward; autograd runs all of it in one pass."""
