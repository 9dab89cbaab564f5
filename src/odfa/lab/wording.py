"""What tables and legends say of a run: its arm, its rule, and what part of the learning is electronic."""

from odfa.session import RunConfig
from odfa.settings import tag_of


def rate_centre(config: RunConfig) -> float:
    """Centre of the grid of learning rates from which an arm chooses."""
    return config.optimizer.learning_rate * config.rule.rate_factor


def rule_of(config: RunConfig) -> str:
    """The word of the rule that ran."""
    return tag_of(config.rule)


def electronic_part(config: RunConfig) -> str:
    """What of the learning is electronic."""
    projection = "all: nothing is projected" if config.projection is None else config.projection.electronic
    num_outputs = config.network.num_outputs(config.data.peek())
    return config.rule.electronic(projection, num_outputs=num_outputs, width=config.network.widths[-1])
