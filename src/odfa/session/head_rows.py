"""What a task learns with: the run's model, or the model with its loss where the head is computed in rows."""

from torch import nn

from odfa.engine import LinearCrossEntropy
from odfa.error.head import find_head
from odfa.errors import ConfigError
from odfa.session.config import RunConfig
from odfa.settings import tag_of
from odfa.tasks.base import LossModel


class _InRows(LinearCrossEntropy, LossModel):
    """A model whose head is computed `memory.head_rows` rows at a time, together with the loss."""


def learner_of(model: nn.Module, config: RunConfig) -> nn.Module:
    """What `AbstractTask.loss` and `AbstractTask.evaluate` are given: the model, or its loss in rows.

    Raises:
        ConfigError: the network has no linear head behind its blocks.
    """
    rows = config.memory.head_rows
    if rows is None:
        return model
    found = find_head(model, [model.get_submodule(name) for name in config.network.blocks])
    if found is None:
        raise ConfigError(
            f"memory.head_rows: network={tag_of(config.network)} has no head behind its blocks; expected none"
        )
    return _InRows(model, found[1], rows=rows)
