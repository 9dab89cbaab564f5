"""What goes wrong is said in one line, the optimiser has not moved, and nothing half-written stays."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from odfa import data, train
from odfa.errors import CheckpointError, ConfigError, DataError, NonFinite, RunFolderError
from odfa.train import RunConfig, tasks

Quick = Callable[..., RunConfig]


def _one_line(error: BaseException) -> bool:
    return "\n" not in str(error) and bool(str(error))


def _status(run_dir: Path) -> dict[str, object]:
    status: dict[str, object] = json.loads((run_dir / "status.json").read_text())
    return status


@pytest.mark.parametrize("method", ["bp", "shallow", "dfa", "tdfa", "odfa"])
def test_a_nan_in_a_batch_stops_before_the_optimiser_moves(tmp_path: Path, quick: Quick, method: str) -> None:
    with torch.random.fork_rng(devices=[]):
        session = train.build(quick(method))
        good = session.splits.train.head(40)
        train.train_step(session, good)
        before = {name: value.clone() for name, value in session.model.state_dict().items()}
        moments = {name: value.clone() for entry in session.optimizer.state.values() for name, value in entry.items()}
        bad = data.Split(x_ND=good.x_ND.clone(), y_N=good.y_N)
        bad.x_ND[3, 5] = float("nan")
        with pytest.raises(NonFinite, match="step 2: the loss is nan") as caught:
            train.train_step(session, bad)
    assert _one_line(caught.value)
    assert session.step == 1
    assert all(torch.equal(value, before[name]) for name, value in session.model.state_dict().items())
    last = {name: value for entry in session.optimizer.state.values() for name, value in entry.items()}
    assert all(torch.equal(value, moments[name]) for name, value in last.items())


def test_an_infinite_gradient_stops_too(quick: Quick) -> None:
    with torch.random.fork_rng(devices=[]):
        session = train.build(quick("bp"))
        session.model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
        with pytest.raises(NonFinite, match="step 1: the gradient norm is"):
            train.train_step(session, session.splits.train.head(40))
    assert session.step == 0


def test_a_diverging_run_is_recorded_as_failed(tmp_path: Path, quick: Quick) -> None:
    config = quick("bp")
    sgd = replace(config.optimizer, name="sgd", learning_rate=1e30)
    wild = replace(config, optimizer=sgd, model=replace(config.model, activation="relu"))
    with pytest.raises(NonFinite, match=r"step \d+: the loss is"):
        train.run(wild, tmp_path / "run", progress=False)
    status = _status(tmp_path / "run")
    assert status["status"] == "failed"
    assert str(status["reason"]).startswith("NonFinite: step")


@pytest.mark.parametrize(
    ("x", "y", "message"), [(float("nan"), 0, "NaN or infinity"), (0.0, 10, "label 10 of sample 7")]
)
def test_bad_data_leave_no_run_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, x: float, y: int, message: str
) -> None:
    def load(config: train.DataConfig) -> data.Splits:
        splits = data.load_digits().limited(config.limit)
        splits.train.x_ND[7, 0], splits.train.y_N[7] = x, y
        return splits

    monkeypatch.setitem(tasks.TASKS, "digits", replace(tasks.TASKS["digits"], load=load))
    with pytest.raises(DataError, match=message):
        train.run(quick("bp"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_misfits_are_config_errors(tmp_path: Path, quick: Quick) -> None:
    config = quick("bp")
    uneven = replace(config, method="identity", model=replace(config.model, widths=(24, 32)))
    for wrong, message in [
        (replace(config, batch_size=241), "batch_size: expected at most 240"),
        (replace(config, task="digit"), "unknown task 'digit'; did you mean digits"),
        (uneven, "expected blocks of one width"),
    ]:
        with pytest.raises(ConfigError, match=message) as caught:
            train.run(wrong, tmp_path / "run", progress=False)
        assert _one_line(caught.value)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["file/run", "file", "/proc/odfa-run"])
def test_folders_that_cannot_be_written(tmp_path: Path, quick: Quick, where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot use the run folder") as caught:
        train.run(quick("bp"), tmp_path / where, progress=False)
    assert _one_line(caught.value)
    assert (tmp_path / "file").read_text() == "in the way"


@contextmanager
def _largest_file(num_bytes: int) -> Iterator[None]:
    """Writing beyond that size fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("num_bytes", "place"),
    [(100, "config.json"), (600, "metrics"), (1500, "metrics"), (5000, "model"), (19_000, "optimizer")],
)
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, quick: Quick, traces: Callable[[Path], dict[str, bytes]], num_bytes: int, place: str
) -> None:
    config, run_dir = quick("bp"), tmp_path / "run"
    with _largest_file(num_bytes), pytest.raises(RunFolderError, match=r"File too large|disk is full") as caught:
        train.run(config, run_dir, progress=False)
    assert _one_line(caught.value)
    for log in run_dir.glob("*.jsonl"):
        assert all(json.loads(line) for line in log.read_text().splitlines())
        assert not log.stat().st_size or log.read_text().endswith("\n")
    for file in run_dir.glob("*.json"):
        assert json.loads(file.read_text())
    assert not list(run_dir.rglob("*.partial"))
    assert all(checkpoint_files(path) for path in (run_dir / "checkpoints").glob("step_*"))
    train.run(config, run_dir, resume=True, progress=False)
    train.run(config, tmp_path / "whole", progress=False)
    assert traces(run_dir) == traces(tmp_path / "whole")


def checkpoint_files(path: Path) -> dict[str, bytes]:
    from odfa.train import checkpoint

    return checkpoint.read_files(path)


def test_no_space_left_in_the_middle_of_a_row(tmp_path: Path, quick: Quick) -> None:
    """The disk takes the first half of a row: it is taken back."""
    config = quick("bp")
    train.run(config, tmp_path / "whole", progress=False)
    size = (tmp_path / "whole/metrics.jsonl").read_bytes().index(b"\n") + 20
    assert size > 100
    with _largest_file(max(size, 900)), pytest.raises(RunFolderError):
        train.run(config, tmp_path / "run", progress=False)
    rows = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert (tmp_path / "whole/metrics.jsonl").read_bytes().startswith(rows)
    assert rows.endswith(b"\n")


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    for action in (train.load_run, lambda path: train.resume(path, progress=False)):
        with pytest.raises(RunFolderError, match=r"config\.json is missing; is .* a run folder"):
            action(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match="is not JSON"):
        train.load_run(tmp_path)


def test_a_run_without_checkpoint_cannot_be_loaded(tmp_path: Path, quick: Quick) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    for path in (tmp_path / "run/checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    with pytest.raises(CheckpointError, match="holds no checkpoint yet"):
        train.load_run(tmp_path / "run")


def test_a_log_cut_short_is_noticed(tmp_path: Path, quick: Quick) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    (tmp_path / "run/status.json").unlink()
    (tmp_path / "run/metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl .* is shorter"):
        train.resume(tmp_path / "run", progress=False)
