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


def _has_begun(run_dir: Path) -> bool:
    return (run_dir / "config.json").exists()


def _has_saved(run_dir: Path) -> bool:
    return bool(checkpoint.find(run_dir / "checkpoints"))


def _wait(child: multiprocessing.process.BaseProcess, sign: Callable[[Path], bool], run_dir: Path) -> None:
    while not sign(run_dir):
        assert child.is_alive()
        time.sleep(0.001)


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
    config, draw, lengths_s, found = quick(arm), random.Random(arm), {}, set()
    whole = _start(children, config, tmp_path / "whole")
    for sign in (_has_begun, _has_saved):
        _wait(whole, sign, tmp_path / "whole")
        lengths_s[sign] = -time.perf_counter()
    whole.join()
    lengths_s = {sign: begun_s + time.perf_counter() for sign, begun_s in lengths_s.items()}
    expected = traces(tmp_path / "whole")
    for trial in range(kills):
        run_dir = tmp_path / f"killed{trial}"
        child = _start(children, config, run_dir)
        # every second kill comes after a checkpoint, of which some machines write the first when little is left to do
        sign = (_has_begun, _has_saved)[trial % 2]
        _wait(child, sign, run_dir)
        time.sleep(lengths_s[sign] * draw.uniform(trial, trial + 1) / kills)
        child.kill()
        child.join()
        found.add(len(checkpoint.find(run_dir / "checkpoints")))
        resumed = _start(children, config, run_dir)
        resumed.join()
        assert resumed.exitcode == 0
        assert traces(run_dir) == expected, f"trial {trial}"
        assert load_run(run_dir).result is not None
    assert len(found) > 1, "the kills must fall into different stages of the run"
