"""What a run learns: a table of tasks, each with its data, network, loss and metric. A new task is one more row."""

import difflib

from odfa.errors import ConfigError
from odfa.train.tasks.base import AbstractTask, Metric
from odfa.train.tasks.classify import DIGITS, FASHION
from odfa.train.tasks.climate import Climate, ClimateBench
from odfa.train.tasks.diffuse import Diffuse
from odfa.train.tasks.language import Language

__all__ = ["TASKS", "AbstractTask", "Metric", "get_task"]

TASKS: dict[str, AbstractTask] = {
    "digits": DIGITS,
    "fashion": FASHION,
    "text": Language(),
    "climate": Climate(),
    "climatebench": ClimateBench(),
    "diffusion": Diffuse(),
}


def get_task(name: str) -> AbstractTask:
    """The task of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=3) or list(TASKS)
        raise ConfigError(f"unknown task {name!r}; did you mean {' or '.join(near)}?")
    return TASKS[name]
