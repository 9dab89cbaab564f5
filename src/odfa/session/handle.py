"""From a run's rule and projection to the handle that feeds its blocks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from odfa.data import DataShape, Split
from odfa.engine.rules.base import UNSTREAMED
from odfa.errors import ConfigError
from odfa.session.config import FeedbackSettings, RunConfig
from odfa.session.memory import recompute_blocks
from odfa.settings import SettingError, tag_of

if TYPE_CHECKING:
    from odfa.engine import DFA
    from odfa.project import AbstractProjection

_T = TypeVar("_T")


def attach(
    model: nn.Module, config: RunConfig, shape: DataShape, *, projection: "AbstractProjection | None" = None
) -> "DFA | None":
    """The DFA handle that the run's rule asks for; None where the rule attaches nothing (backpropagation).

    Args:
        projection: takes the place of the run's own.

    Raises:
        ConfigError, Incompatible: what `check_feedback` refuses.
    """
    check_feedback(config, shape)
    if not config.rule.cuts:
        recompute_blocks(model, config.memory)
        return None
    from odfa.engine import DFA
    from odfa.engine.handle import Recompute

    activations, feedback = config.memory.activations, config.feedback or FeedbackSettings()
    recompute: Recompute = "stream" if activations == "stream" else activations == "recompute"
    if projection is None and config.projection is not None:
        projection = config.projection.build(config.seed)
    return DFA(
        model,
        blocks=fed(config, config.network.blocks),
        projection=projection,
        rule=config.rule,
        error_at="logits" if config.projection is None else config.projection.tap(config.network.blocks),
        branches=() if feedback.granularity == "block" else config.network.branches,
        linears=config.network.linears if feedback.granularity == "linear" else (),
        recompute=recompute,
        overwrite_head=True,  # a run has just built its head
    )


def check_feedback(config: RunConfig, shape: DataShape) -> None:
    """Refuse a rule, a projection or a placement that network and data cannot serve.

    Raises:
        ConfigError: what the rule needs and nobody gives, branches that the network has not, a rank that the head does
            not have, a projection that does not fit the blocks, learned weights under a rule that sets the head.
        Incompatible: the OPU has too few mirrors or modes.
    """
    network, feedback, rule = config.network, config.feedback, config.rule
    _check_needs(config)
    if feedback is not None and feedback.granularity != "block" and not network.branches:
        raise ConfigError(
            f"feedback.granularity={feedback.granularity}: this network has no residual branches, expected block"
        )
    if rule.sets_head and network.learned:
        raise ConfigError(
            f"rule={tag_of(rule)}: it sets the head to weights of its own, and network={tag_of(network)} comes with "
            "weights that have learned; expected rule=random, or a folder with config.json alone"
        )
    num_outputs = network.num_outputs(shape)
    with _under("rule"):
        rule.check(num_outputs=num_outputs, width=network.widths[-1])
    if config.projection is None:
        return
    if rule.sets_head and config.projection.recalibrates:
        raise ConfigError(
            f"projection: rule={tag_of(rule)} starts from the measured matrix and cannot go on with another one, "
            "expected guard.when_lost=stop"
        )
    with _under("projection"):
        config.projection.check(
            run_seed=config.seed,
            num_inputs=num_inputs(config, shape),
            num_outputs=num_projected(config, shape),
            widths=fed(config, network.signal_widths(shape)),
        )


def _check_needs(config: RunConfig) -> None:
    """Refuse a rule that needs what the task does not give, or what the run's memory does not keep.

    Raises:
        ConfigError: targets of a task without labels, block inputs of a streamed run, steps of fused updates.
    """
    rule, memory = config.rule, config.memory
    if "targets" in rule.needs and not config.task.labelled:
        raise ConfigError(
            f"rule={tag_of(rule)}: it needs targets, and task={tag_of(config.task)} gives none; expected a task with "
            "labels (labelled = True, and targets, in its class)"
        )
    unkept = sorted(rule.needs & UNSTREAMED)
    if unkept and memory.activations == "stream":
        raise ConfigError(
            f"memory.activations=stream: rule={tag_of(rule)} needs every {' and '.join(unkept)}, which are not kept; "
            "expected recompute"
        )
    if "optimiser step" in rule.needs and memory.fused:
        raise ConfigError(f"memory.fused=true: rule={tag_of(rule)} needs steps of the whole model, expected false")


def give_targets(dfa: "DFA | None", config: RunConfig, batch: Split) -> None:
    """Hand the batch's targets over to a rule that needs them; before the model runs on the batch."""
    if dfa is not None and "targets" in config.rule.needs:
        dfa.targets(config.task.targets(batch))


def num_inputs(config: RunConfig, shape: DataShape) -> int:
    """Width of the error at the tap: the head's outputs, or those of the last block."""
    network = config.network
    at_block = config.projection is not None and config.projection.tap(network.blocks) in network.blocks
    return network.widths[-1] if at_block else network.num_outputs(shape)


@contextmanager
def _under(key: str) -> Iterator[None]:
    """Name settings from the root of the run."""
    try:
        yield
    except SettingError as error:
        raise error.under(key) from error


def num_projected(config: RunConfig, shape: DataShape) -> int:
    """Outputs of the projection: what the rule takes for signals of these widths and a head's input of that one."""
    network = config.network
    return config.rule.num_projected(fed(config, network.signal_widths(shape)), head=network.widths[-1])


def fed(config: RunConfig, of_blocks: tuple[_T, ...]) -> tuple[_T, ...]:
    """Of one value per block, those of the blocks at whose output feedback enters: the last of each group, counted from
    the last block."""
    group = 1 if config.feedback is None else config.feedback.group
    return of_blocks[::-1][::group][::-1]
