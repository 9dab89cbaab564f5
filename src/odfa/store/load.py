"""Read a run folder back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odfa.session.assembly import build_model
from odfa.session.config import RunConfig
from odfa.session.memory import new_weights
from odfa.store.checkpoint import check_model, load_model, newest
from odfa.store.folder import read_config, read_lines, read_result
from odfa.store.kept import KeptData, read_kept
from odfa.store.result import RunResult
from odfa.store.shards import verify


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A run folder in memory; `model` has the newest checkpoint's weights, or their average where the run keeps
    one, and is in evaluation mode."""

    path: Path
    config: RunConfig
    kept: KeptData
    """What the folder says of the run's data, which are not looked at."""
    metrics: list[dict[str, Any]]
    model: nn.Module
    result: RunResult | None
    """None: the run is not complete."""


def load_run(run_dir: Path | str) -> LoadedRun:
    """Config, metrics, model and result of a run; the folder is not changed, the data need not be there.

    Raises:
        RunFolderError: not a run folder. CheckpointError: no checkpoint yet, or a corrupt one.
    """
    path = Path(run_dir)
    config = read_config(path)
    kept = read_kept(path)
    metrics, result = read_lines(path / "metrics.jsonl"), read_result(path)
    return LoadedRun(
        path=path,
        config=config,
        kept=kept,
        metrics=metrics,
        model=newest(path, lambda checkpoint: _model(config, kept, checkpoint)).eval(),
        result=RunResult.from_json(result) if result else None,
    )


def _model(config: RunConfig, kept: KeptData, path: Path) -> nn.Module:
    """The model of a checkpoint; its size is known to be that of the weights before there is room for it."""
    files, stem = verify(path), "model" if config.optimizer.average is None else "average"
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"), new_weights(config.memory):
            check_model(config.network.build(kept.shape), files, path, stem)
        model = build_model(config, kept.shape)
    load_model(model, files, path, stem)
    return model
