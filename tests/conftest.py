"""A run that takes a fraction of a second, and how two runs are compared."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from odfa import recipes
from odfa.engine.rules.head import FollowedHeadRule
from odfa.session import RunConfig
from odfa.store import checkpoint
from odfa.store.shards import verify
from odfa.tasks.vision.mlp import MlpNetwork


def _quick(arm: str = "bp", *, rule: str = "random") -> RunConfig:
    run = recipes.get("digits_tiny", arm if rule == "random" else f"{arm}:{rule}")
    ranked = {"rank": 2, "every": 5} if isinstance(run.rule, FollowedHeadRule) else {}
    return replace(
        run,
        rule=replace(run.rule, **ranked),
        epochs=3,
        batch_size=40,
        log_every=1,
        checkpoint_every=4,
        tensorboard=False,
        network=MlpNetwork(widths=(24, 24)),
        data=replace(run.data, limit=240),
    )


def _traces(run_dir: Path) -> dict[str, bytes]:
    """What must be equal, byte for byte, for equal runs."""
    last = checkpoint.find(run_dir / "checkpoints")[-1]
    files = {name: file.read_bytes() for name, file in verify(last).items() if name != "state.json"}
    return {"metrics": (run_dir / "metrics.jsonl").read_bytes(), "step": last.name.encode(), **files}


@pytest.fixture(scope="session")
def quick() -> Callable[..., RunConfig]:
    """`quick(arm, rule=…)`: 18 steps of a small network on 240 digits, six steps an epoch."""
    return _quick


@pytest.fixture(scope="session")
def traces() -> Callable[[Path], dict[str, bytes]]:
    """`traces(run_dir)`: weights, optimiser, feedback state and metrics as bytes."""
    return _traces
