"""Kill -9 at random moments: what is resumed equals what was never interrupted."""

import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from odfa import train
from odfa.session import RunConfig
from odfa.store import checkpoint, load_run


@pytest.fixture(scope="module")
def children() -> ForkServerContext:
    """Processes that start in milliseconds, because their server has imported everything."""
    context = multiprocessing.get_context("forkserver")
    # optimisers import torch._dynamo when they first step
    context.set_forkserver_preload(
        [
            "odfa.train",
            "odfa.engine",
            "sklearn.datasets",
            "safetensors.torch",
            "torch._dynamo",
            "torch.utils.tensorboard",
        ]
    )
    first = context.Process(target=time.monotonic)
    first.start()
    first.join()
    return context


def _start(children: ForkServerContext, config: RunConfig, run_dir: Path) -> multiprocessing.process.BaseProcess:
    child = children.Process(target=train.run, args=(config, run_dir), kwargs={"resume": True, "progress": False})
    child.start()
    return child


@pytest.mark.parametrize(
    ("arm", "kills"), [("odfa", 6), *(pytest.param(arm, 20, marks=pytest.mark.slow) for arm in ("dfa", "odfa"))]
)
def test_killed_runs_resume_bit_for_bit(
    tmp_path: Path,
    children: ForkServerContext,
    quick: Callable[..., RunConfig],
    traces: Callable[[Path], dict[str, bytes]],
    arm: str,
    kills: int,
) -> None:
    config, draw = quick(arm), random.Random(arm)
    start_s = time.perf_counter()
    whole = _start(children, config, tmp_path / "whole")
    while not (tmp_path / "whole/config.json").exists():
        assert time.perf_counter() - start_s < 60
        time.sleep(0.002)
    begun_s = time.perf_counter()
    whole.join()
    length_s, expected = time.perf_counter() - begun_s, traces(tmp_path / "whole")
    found = set()
    for trial in range(kills):
        run_dir = tmp_path / f"killed{trial}"
        child = _start(children, config, run_dir)
        while not (run_dir / "config.json").exists():
            assert child.is_alive()
            time.sleep(0.001)
        time.sleep(draw.uniform(0, length_s))
        child.kill()
        child.join()
        found.add(len(checkpoint.find(run_dir / "checkpoints")))
        resumed = _start(children, config, run_dir)
        resumed.join()
        assert resumed.exitcode == 0
        assert traces(run_dir) == expected, f"trial {trial}"
        assert load_run(run_dir).result is not None
    assert len(found) > 1, "the kills must fall into different stages of the run"
