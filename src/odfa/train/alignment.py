"""The angle between what the blocks of a run learn by and their true gradient."""

import torch

from odfa.data import Split
from odfa.engine import Alignment
from odfa.errors import ConfigError
from odfa.session.assembly import Session, seed_step
from odfa.session.config import RunConfig
from odfa.session.handle import give_targets
from odfa.settings import tag_of

_MAX_SAMPLES, _MAX_ROWS = 1000, 4096


def check_measurable(config: RunConfig, where: str) -> None:
    """Refuse runs that have no feedback to measure; `where` begins the message.

    Raises:
        ConfigError: backpropagation, or blocks that do not learn.
    """
    if not config.rule.feeds:
        raise ConfigError(f"{where}with rule={tag_of(config.rule)} no signal is fed to a block; expected another rule")


def alignment_batch(session: Session) -> Split:
    """The validation samples that angles are measured on: as many as keep the error rows few."""
    rows = session.config.network.num_rows(session.splits.shape)
    return session.splits.validation.head(min(_MAX_SAMPLES, max(1, _MAX_ROWS // rows)))


def measure_alignment(session: Session) -> Alignment:
    """Cosine between local and true gradient and both norms, per block, on one batch of the validation part.

    Weights stay; what the loss draws at random depends on the step alone. The projection's light is spent.
    """
    assert session.dfa is not None
    with torch.random.fork_rng(devices=[]), session.dfa.measure_alignment() as angles:
        seed_step(session.config, session.step)
        batch = alignment_batch(session)
        give_targets(session.dfa, session.config, batch)
        session.dfa.backward(session.task.loss(session.model, batch))
    return angles
