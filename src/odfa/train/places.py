"""Where a run's data and calibration lie: whole paths in the run folder, and no part of what makes two runs equal."""

from dataclasses import replace
from pathlib import Path

from odfa.train.config import RunConfig


def with_whole_paths(config: RunConfig) -> RunConfig:
    """`config` with paths that mean the same from every working folder."""
    path, calibration = _whole(config.data.path), _whole(config.feedback.calibration)
    return replace(
        config, data=replace(config.data, path=path), feedback=replace(config.feedback, calibration=calibration)
    )


def without_places(config: RunConfig) -> RunConfig:
    """`config` without them: data are known by their fingerprint, calibrations by their number."""
    return replace(config, data=replace(config.data, path=None), feedback=replace(config.feedback, calibration=None))


def _whole(path: str | None) -> str | None:
    return path if path is None else str(Path(path).expanduser().absolute())
