"""A resumed run equals one that was never interrupted, bit for bit."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from odfa import train
from odfa.errors import CheckpointError, RunFolderError
from odfa.session import RunConfig, Session
from odfa.store import load_run
from odfa.train import loop

Quick = Callable[..., RunConfig]
Traces = Callable[[Path], dict[str, bytes]]

_CASES = [
    ("bp", "random"),
    ("shallow", "random"),
    ("dfa", "random"),
    ("dfa", "aligned"),
    ("dfa", "electronic"),
    ("dfa", "low_rank"),
    ("dfa", "drtp"),
    ("dfa", "kolen_pollack"),
    ("dfa", "forward_gradient"),
    ("tdfa", "random"),
    ("odfa", "random"),
    ("odfa", "aligned"),
    ("identity", "random"),
]
_NUM_STEPS = 18


class _Crash(Exception):
    """Stands for anything that ends a process without warning."""


def _act_before(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Call `act` once, when the run is about to do the step after `step`."""
    real = loop.train_step

    def step_or_act(session: Session, batch: Any) -> dict[str, Any]:
        if session.step == step:
            act()
        return real(session, batch)

    monkeypatch.setattr(loop, "train_step", step_or_act)


def _crash() -> None:
    raise _Crash


@pytest.mark.parametrize(("arm", "rule"), _CASES)
def test_resume_equals_never_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, traces: Traces, arm: str, rule: str
) -> None:
    config = quick(arm, rule=rule)
    whole = train.run(config, tmp_path / "whole", progress=False)
    assert whole.steps == _NUM_STEPS
    for stop in (0, 1, 4, 7, 13, 17):
        stopped = tmp_path / f"stopped{stop}"
        with monkeypatch.context() as patch:
            _act_before(patch, stop, _crash)
            with pytest.raises(_Crash):
                train.run(config, stopped, progress=False)
        assert json.loads((stopped / "status.json").read_text())["status"] == "failed"
        resumed = train.run(config, stopped, resume=True, progress=False)
        assert traces(stopped) == traces(tmp_path / "whole"), f"stopped before step {stop + 1}"
        assert (resumed.metric, resumed.validation, resumed.light) == (whole.metric, whole.validation, whole.light)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop", [0, 5, 9])
def test_signals_finish_the_step_and_leave_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, traces: Traces, number: signal.Signals, stop: int
) -> None:
    config, handlers = quick("odfa"), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        _act_before(patch, stop, lambda: signal.raise_signal(number))
        with pytest.raises(train.Interrupted, match=f"stopped at step {stop + 1}; resume with") as caught:
            train.run(config, tmp_path / "stopped", progress=False)
    assert (caught.value.step, caught.value.run_dir) == (stop + 1, tmp_path / "stopped")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    status = json.loads((tmp_path / "stopped/status.json").read_text())
    assert (status["status"], status["step"]) == ("interrupted", stop + 1)
    assert (tmp_path / f"stopped/checkpoints/step_{stop + 1:07d}").is_dir()
    train.resume(tmp_path / "stopped", progress=False)
    train.run(config, tmp_path / "whole", progress=False)
    assert traces(tmp_path / "stopped") == traces(tmp_path / "whole")


@pytest.mark.parametrize(("stop", "kept"), [(0, 0), (2, 0), (5, 4), (17, 16)])
def test_a_second_ctrl_c_stops_at_once_and_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, traces: Traces, stop: int, kept: int
) -> None:
    config, run_dir = quick("odfa"), tmp_path / "stopped"

    def press_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        _act_before(patch, stop, press_twice)
        with pytest.raises(train.Interrupted, match=f"resume with odfa train --resume {run_dir}") as caught:
            train.run(config, run_dir, progress=False)
    assert (caught.value.step, caught.value.run_dir) == (kept, run_dir)
    assert ("before the first checkpoint" in str(caught.value)) == (kept == 0)
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["status"], status["step"]) == ("interrupted", kept)
    train.resume(run_dir, progress=False)
    train.run(config, tmp_path / "whole", progress=False)
    assert traces(run_dir) == traces(tmp_path / "whole")


def test_a_ctrl_c_between_folder_and_first_step_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick
) -> None:
    def press(*_arguments: object) -> dict[str, object]:
        signal.raise_signal(signal.SIGINT)
        return {}

    monkeypatch.setattr(loop, "environment", press)
    with pytest.raises(train.Interrupted, match="stopped at step 1; resume with"):
        train.run(quick("bp"), tmp_path / "run", progress=False)
    assert (tmp_path / "run/checkpoints/step_0000001").is_dir()


def test_a_ctrl_c_before_there_is_a_folder_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick
) -> None:
    monkeypatch.setattr(loop, "build", lambda _config: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt) as caught:
        train.run(quick("bp"), tmp_path / "run", progress=False)
    assert not isinstance(caught.value, train.Interrupted)
    assert not (tmp_path / "run").exists()


def test_the_status_names_the_steps_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick
) -> None:
    seen, real = [], loop.train_step

    def look(session: Session, batch: Any) -> dict[str, Any]:
        seen.append(json.loads((tmp_path / "run/status.json").read_text()))
        return real(session, batch)

    monkeypatch.setattr(loop, "train_step", look)
    train.run(quick("bp"), tmp_path / "run", progress=False)
    assert [status["step"] for status in seen] == [step // 4 * 4 for step in range(_NUM_STEPS)]
    assert {status["status"] for status in seen} == {"running"}


def test_a_crash_at_any_write_of_a_checkpoint_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, traces: Traces
) -> None:
    """The process ends at the n-th sync to disk, for every n until the run gets through."""
    config = replace(quick("bp"), epochs=1, checkpoint_every=2)
    train.run(config, tmp_path / "whole", progress=False)
    real, calls = os.fsync, 0

    def fsync_or_crash(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == fatal:
            raise _Crash
        real(descriptor)

    for fatal in range(1, 200):
        calls, stopped = 0, tmp_path / "stopped"
        shutil.rmtree(stopped, ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync_or_crash)
            try:
                train.run(config, stopped, progress=False)
            except _Crash:
                pass
            else:
                break
        train.run(config, stopped, resume=True, progress=False)
        assert traces(stopped) == traces(tmp_path / "whole"), f"crashed at sync {fatal}"
        assert not list((stopped / "checkpoints").glob(".*"))
    assert 20 < fatal < 199


def test_equal_configs_give_equal_runs_and_seeds_differ(tmp_path: Path, quick: Quick, traces: Traces) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed)
        train.run(replace(quick("odfa"), seed=seed), tmp_path / name, progress=False)
    assert traces(tmp_path / "a") == traces(tmp_path / "b")
    assert traces(tmp_path / "a")["model.safetensors"] != traces(tmp_path / "c")["model.safetensors"]


def test_the_callers_random_state_and_threads_are_left_as_found(tmp_path: Path, quick: Quick) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train.run(quick("dfa"), tmp_path / "run", progress=False)
    load_run(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_complete_run_returns_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick) -> None:
    config = quick("bp")
    first = train.run(config, tmp_path / "run", progress=False)
    _act_before(monkeypatch, 0, _crash)
    assert train.run(config, tmp_path / "run", resume=True, progress=False) == first
    assert load_run(tmp_path / "run").result == first


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path, quick: Quick) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    with pytest.raises(RunFolderError, match="already holds a run"):
        train.run(quick("bp"), tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match=r"belongs to another config \(seed: 0 there, 1 here\)"):
        train.run(replace(quick("bp"), seed=1), tmp_path / "run", resume=True, progress=False)


def test_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick) -> None:
    config, seen = quick("bp"), []

    def run_again() -> None:
        with pytest.raises(RunFolderError, match="in use by another process") as caught:
            train.run(config, tmp_path / "run", resume=True, progress=False)
        seen.append(caught.value)

    _act_before(monkeypatch, 3, run_again)
    train.run(config, tmp_path / "run", progress=False)
    assert len(seen) == 1
