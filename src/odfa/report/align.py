"""The angle between what the blocks of a run learn by and their true gradient."""

import math
from pathlib import Path
from typing import Any

import torch

from odfa.errors import CheckpointError, ConfigError
from odfa.report.methods import rule_of
from odfa.train import build, checkpoint, network_of
from odfa.train.folder import read_config

_MAX_SAMPLES, _MAX_ROWS = 1000, 4096
_NOTHING_TO_MEASURE = {
    "bp": "backpropagation learns by the true gradient itself",
    "shallow": "with method=shallow the blocks do not learn",
}


def align(run_dir: Path | str) -> dict[str, Any]:
    """Cosine between local and true gradient and both norms, per block, on one batch of the validation part.

    The newest checkpoint is used; the run folder is not changed. A cosine is None where a gradient is exactly zero.

    Raises:
        RunFolderError: not a run folder. CheckpointError: no checkpoint yet, or a corrupt or foreign one.
        ConfigError: the run has no feedback to measure.
    """
    path = Path(run_dir)
    config = read_config(path)
    if config.method in _NOTHING_TO_MEASURE:
        raise ConfigError(f"{path}: {_NOTHING_TO_MEASURE[config.method]}; align a run of another method")
    found = checkpoint.find(path / "checkpoints")
    if not found:
        raise CheckpointError(f"{path} holds no checkpoint yet; go on with the run first (odfa train --resume {path})")
    with torch.random.fork_rng(devices=[]):
        session = build(config)
    checkpoint.restore(session, found[-1])
    assert session.dfa is not None
    rows = network_of(config.model, session.splits.shape).num_rows
    batch = session.splits.validation.head(min(_MAX_SAMPLES, max(1, _MAX_ROWS // rows)))
    with session.dfa.measure_alignment() as angles:
        session.dfa.backward(session.task.loss(session.model, batch))
    return {
        "run": str(path),
        "recipe": config.recipe,
        "method": config.method,
        "rule": rule_of(config),
        "step": session.step,
        "samples": len(batch),
        "blocks": [
            {
                "name": name,
                "cosine": None if math.isnan(cosine) else cosine,
                "norm": angles.norms[name][0],
                "true_norm": angles.norms[name][1],
            }
            for name, cosine in angles.items()
        ],
    }
