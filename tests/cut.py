"""Runs that are stopped in the middle."""

from pathlib import Path

import pytest

from odfa import train
from odfa.session import RunConfig


def train_and_cut(config: RunConfig, run_dir: Path, *, after: int) -> None:
    """Train up to step `after`, where it is interrupted; what a checkpoint holds is kept."""
    real = train.loop.train_step

    def stop(session, batch):
        if session.step == after:
            raise KeyboardInterrupt
        return real(session, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, run_dir, progress=False)
