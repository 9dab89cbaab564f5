"""Builds the DFA handle, which feeds the blocks of a run, from its rule and projection."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from odfa.data import DataShape, Split
from odfa.engine.rules.base import UNSTREAMED
from odfa.errors import ConfigError
from odfa.session.compiled import check_compiled, compile_all
from odfa.session.config import FeedbackSettings, RunConfig
from odfa.session.memory import recompute_blocks
from odfa.settings import SettingError, require, tag_of

if TYPE_CHECKING:
    from odfa.engine import DFA
    from odfa.project import AbstractProjection

_T = TypeVar("_T")


def attach(
    model: nn.Module, config: RunConfig, shape: DataShape, *, projection: "AbstractProjection | None" = None
) -> "DFA | None":
    """Attach the run's rule to `model` and return the DFA handle; None for backpropagation, which needs no handle.

    Args:
        projection: used instead of the one that the run's settings describe.

    Raises:
        ConfigError, Incompatible: what `check_feedback` refuses.
    """
    check_feedback(config, shape)
    if not config.rule.cuts:
        recompute_blocks(model, config.memory)
        compile_all(model, config)
        return None
    from odfa.engine import DFA
    from odfa.engine.handle import Recompute

    # a rule that cuts the graph but feeds no block (shallow) has no feedback settings; the defaults place nothing then
    activations, feedback = config.memory.activations, config.feedback or FeedbackSettings()
    recompute: Recompute = "stream" if activations == "stream" else activations == "recompute"
    if projection is None and config.projection is not None:
        projection = config.projection.build(config.seed)
    dfa = DFA(
        model,
        blocks=fed(config, config.network.blocks),
        projection=projection,
        rule=config.rule,
        error_at="logits" if config.projection is None else config.projection.tap(config.network.blocks),
        branches=() if feedback.granularity == "block" else config.network.branches,
        linears=config.network.linears if feedback.granularity == "linear" else (),
        recompute=recompute,
        overwrite_head=True,  # nothing learned is lost: `check_feedback` refused heads that have learned before
        compile=config.compile,
    )
    compile_all(model, config, without=dfa.blocks)
    return dfa


def check_feedback(config: RunConfig, shape: DataShape) -> None:
    """Refuse a rule, a projection or a place of the feedback that does not fit the network or the data.

    Raises:
        ConfigError: a network of no sizes, a rule that needs what the run does not give or keep, feedback at branches
            of a network that has none, larger groups than there are blocks, patterns of blocks that there are not, a
            rank above that of the head, a projection that does not fit the blocks, learned weights under a rule that
            sets the head, or blocks that cannot be compiled.
        Incompatible: the OPU has too few mirrors or modes.
    """
    network, feedback, rule = config.network, config.feedback, config.rule
    network.check_sizes(shape)
    _check_needs(config)
    check_compiled(config)
    if feedback is not None and feedback.granularity != "block" and not network.branches:
        raise ConfigError(
            f"feedback.granularity={feedback.granularity}: this network has no residual branches that are known by "
            "name; expected block"
        )
    if feedback is not None and feedback.granularity == "linear" and rule.crossings:
        raise ConfigError(
            f"feedback.granularity=linear: rule={tag_of(rule)} with hops takes true input gradients of blocks, which "
            "this would replace; expected block or sublayer, or rule.hops=0"
        )
    if feedback is not None and feedback.group > len(network.blocks):
        raise ConfigError(
            f"feedback.group: expected at most {len(network.blocks)}, the blocks of this network, got {feedback.group}"
        )
    if rule.sets_head and network.learned:
        raise ConfigError(
            f"rule={tag_of(rule)}: it overwrites the head's weights, and those of network={tag_of(network)} have "
            "learned before; expected rule=random, or a folder with config.json alone"
        )
    # the rule before its projection: how many outputs the projection must have follows from the rule
    num_outputs = network.num_outputs(shape)
    with _under("rule"):
        rule.check(num_outputs=num_outputs, width=network.widths[-1])
        rule.check_blocks(fed(config, network.blocks))
        most = len(fed(config, network.blocks))
        require(rule.crossings <= most, "hops", f"at most {most}, the places that are fed", rule.crossings)
    if config.projection is None:
        return
    # a new calibration measures another matrix, to which the head and its weights would not be aligned
    if rule.sets_head and config.projection.recalibrates:
        raise ConfigError(
            f"projection: rule={tag_of(rule)} starts from the measured matrix and cannot go on with another one; "
            "expected guard.when_lost=stop"
        )
    if rule.reads_matrix:
        rule.check_projection(config.projection.build(config.seed))
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
        raise ConfigError(f"memory.fused=true: rule={tag_of(rule)} needs steps of the whole model; expected false")


def give_targets(dfa: "DFA | None", config: RunConfig, batch: Split) -> None:
    """Hand the batch's targets over to a rule that needs them; before the model runs on the batch."""
    if dfa is not None and "targets" in config.rule.needs:
        dfa.targets(config.task.targets(batch))


def num_inputs(config: RunConfig, shape: DataShape) -> int:
    """Width of the error that is projected: of the head's outputs, or of the last block's if it is read there."""
    network = config.network
    at_block = config.projection is not None and config.projection.tap(network.blocks) in network.blocks
    return network.widths[-1] if at_block else network.num_outputs(shape)


@contextmanager
def _under(key: str) -> Iterator[None]:
    """Put `key` before the names in errors about settings, so that they are told from the root of the run."""
    try:
        yield
    except SettingError as error:
        raise error.under(key) from error


def num_projected(config: RunConfig, shape: DataShape) -> int:
    """Number of outputs that the rule needs of the projection, given the widths of its signals and the head's input."""
    network = config.network
    return config.rule.num_projected(fed(config, network.signal_widths(shape)), head=network.widths[-1])


def fed(config: RunConfig, of_blocks: tuple[_T, ...]) -> tuple[_T, ...]:
    """Of one value per block, those of the blocks at whose output feedback enters.

    Blocks are grouped from the last one backwards, so that only the first group can be smaller; the feedback of a group
    enters at the output of its last block.
    """
    group = 1 if config.feedback is None else config.feedback.group
    return of_blocks[::-1][::group][::-1]
