"""Read a run folder back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odfa.errors import CheckpointError
from odfa.train import checkpoint
from odfa.train.build import build_model
from odfa.train.config import RunConfig
from odfa.train.folder import folder_errors, read_config, read_lines, read_result
from odfa.train.result import RunResult
from odfa.train.shards import verify
from odfa.train.tasks import get_task


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A run folder in memory; `model` has the newest checkpoint's weights, or their average where the run keeps
    one, and is in evaluation mode."""

    path: Path
    config: RunConfig
    metrics: list[dict[str, Any]]
    model: nn.Module
    result: RunResult | None
    """None: the run is not complete."""


def load_run(run_dir: Path | str) -> LoadedRun:
    """Config, metrics, model and result of a run; the folder is not changed.

    Raises:
        RunFolderError: not a run folder. CheckpointError: no checkpoint yet, or a corrupt one.
    """
    path = Path(run_dir)
    config = read_config(path)
    with folder_errors(path):
        finished = checkpoint.find(path / "checkpoints")
        metrics, result = read_lines(path / "metrics.jsonl"), read_result(path)
    if not finished:
        raise CheckpointError(f"{path} holds no checkpoint yet; resume the run first (--resume {path})")
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, get_task(config.task).peek(config.data))
    stem = "model" if config.optimizer.average is None else "average"
    checkpoint.load_model(model, verify(finished[-1]), finished[-1], stem)
    return LoadedRun(
        path=path,
        config=config,
        metrics=metrics,
        model=model.eval(),
        result=RunResult.from_json(result) if result else None,
    )
