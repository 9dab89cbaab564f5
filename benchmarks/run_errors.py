"""The errors that a run's rule is given, at its newest checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odfa.session import Session, build
from odfa.session.assembly import seed_step
from odfa.store.checkpoint import newest, restore
from odfa.store.folder import read_config


def run_errors(run: Path, rows: int) -> tuple[Session, Tensor]:
    """The run in memory, and e_ND = dL/dy of the first validation samples; no weight moves.

    Raises:
        SystemExit: the run's rule projects no error.
    """
    session = build(read_config(run))
    newest(run, lambda checkpoint: restore(session, checkpoint))
    if session.dfa is None or session.dfa.at_work.projection is None:
        raise SystemExit(f"{run}: expected a run whose rule projects errors, got {session.config.label}")
    found: list[Tensor] = []
    signals = session.dfa.at_work.signals

    def recorded(error: Any, calls: Sequence[Any]) -> list[Tensor]:
        found.append(error.e_ND)
        return signals(error, calls)

    session.dfa.at_work.signals = recorded  # type: ignore[method-assign]
    session.model.eval()
    seed_step(session.config, session.step)
    for start in range(0, len(session.splits.validation), session.config.batch_size):
        ends = min(start + session.config.batch_size, len(session.splits.validation))
        batch = session.splits.validation.take(torch.arange(start, ends))
        session.dfa.backward(session.task.loss(session.model, batch))
        if sum(len(e_ND) for e_ND in found) >= rows:
            break
    return session, torch.cat(found)[:rows]
