"""Reads a run folder: config, metrics, model and result."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from odfa.session.assembly import build_model
from odfa.session.config import RunConfig
from odfa.session.memory import casting, multiplying, new_weights
from odfa.store.checkpoint import check_model, load_model, newest
from odfa.store.folder import Row, read_config, read_lines, read_result
from odfa.store.kept import KeptData, read_kept
from odfa.store.placed import where_asked
from odfa.store.result import RunResult
from odfa.store.shards import verify
from odfa.tasks.base import device_of


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """What `load_run` returns; `model` is in evaluation mode and has the weights of the newest checkpoint, or their
    moving average if the run keeps one."""

    path: Path
    config: RunConfig
    kept: KeptData
    """The run's data as data.json describes them; the data themselves are not read."""
    metrics: list[Row]
    model: nn.Module
    result: RunResult | None
    """Final figures; None if the run is not complete."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within this context the model computes in the precision that the run was evaluated in: under autocast, by
        tf32, or as its weights are."""
        precision = self.config.memory.precision
        with multiplying(precision), casting(precision, device_of(self.model)):
            yield


def load_run(run_dir: Path | str) -> LoadedRun:
    """Config, metrics, model and result of a run. The folder is not changed, and the data need not exist any more.

    Raises:
        RunFolderError: it is no run folder, or a file in it is damaged. CheckpointError: there is no checkpoint yet, or
            the newest one is corrupt.
    """
    # small files first: they say what is wrong before a large model is built
    path = Path(run_dir)
    config = read_config(path)
    kept = read_kept(path)
    metrics, result = read_lines(path / "metrics.jsonl"), read_result(path)
    return LoadedRun(
        path=path,
        config=config,
        kept=kept,
        metrics=metrics,
        model=where_asked(newest(path, lambda checkpoint: _model(config, kept, checkpoint)).eval(), config),
        result=RunResult.from_json(result) if result else None,
    )


def _model(config: RunConfig, kept: KeptData, path: Path) -> nn.Module:
    """The model with a checkpoint's weights."""
    # built on the meta device first: sizes in a forged config.json must not make us allocate what no weights fill
    files, stem = verify(path), "model" if config.optimizer.average is None else "average"
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"), new_weights(config.memory):
            check_model(config.network.build(kept.shape), files, path, stem)
        model = build_model(config, kept.shape)
    load_model(model, files, path, stem)
    return model
