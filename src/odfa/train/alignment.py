"""Measures the angle between the gradient that each block learns by and its true gradient."""

from odfa.data import Split
from odfa.engine import Alignment
from odfa.errors import ConfigError
from odfa.keys import forked
from odfa.session.assembly import Session, seed_step
from odfa.session.config import RunConfig
from odfa.session.handle import give_targets
from odfa.settings import tag_of

_MAX_SAMPLES, _MAX_ROWS = 1000, 4096
"""Limits of the batch that is measured: a sample of a language model has one error row per token."""


def check_measurable(config: RunConfig, where: str) -> None:
    """Refuse runs without a signal to measure; `where` is put in front of the message.

    Raises:
        ConfigError: the rule is backpropagation, or one by which blocks do not learn.
    """
    if not config.rule.feeds:
        raise ConfigError(
            f"{where}expected a rule that feeds the blocks, got rule={tag_of(config.rule)}, which feeds none"
        )


def alignment_batch(session: Session) -> Split:
    """The first validation samples, on which angles are measured: at most 1000, with at most 4096 error rows."""
    rows = session.config.network.num_rows(session.splits.shape)
    return session.splits.validation.head(min(_MAX_SAMPLES, max(1, _MAX_ROWS // rows)))


def measure_alignment(session: Session) -> Alignment:
    """Cosine between local and true gradient and both norms, per block, on one batch of the validation part.

    The weights do not change. The error is projected once, and on an OPU this takes light like any step.
    """
    # seeded by the step and forked: measuring more or less often must not change the random draws of training
    assert session.dfa is not None
    with forked([session.device]), session.dfa.measure_alignment() as angles:
        seed_step(session.config, session.step)
        batch = alignment_batch(session).to(session.device)
        give_targets(session.dfa, session.config, batch)
        session.dfa.backward(session.loss(batch))
    return angles
