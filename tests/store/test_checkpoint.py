"""No damaged, foreign or half-written checkpoint is ever loaded."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from odfa import train
from odfa.errors import CheckpointError, OdfaError
from odfa.project import Gaussian, GaussianSettings, OpticalSettings
from odfa.session import RunConfig, Session, build
from odfa.store import checkpoint, load_run
from odfa.store.shards import verify

Quick = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, quick: Quick) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    train.run(quick("dfa", rule="aligned"), run_dir, progress=False)
    return checkpoint.find(run_dir / "checkpoints")[-1]


def _positions(file: Path) -> Iterator[int]:
    """Every byte at the start of a file, then some drawn ones."""
    size = file.stat().st_size
    yield from range(min(size, 250))
    yield from random.Random(0).sample(range(size), min(size, 40))


def test_the_untouched_checkpoint_is_read(finished: Path) -> None:
    assert set(verify(finished)) == {
        "model.safetensors",
        "optimizer.safetensors",
        "state.safetensors",
        "state.json",
    }


def test_any_flipped_bit_is_found(finished: Path) -> None:
    for file in finished.iterdir():
        whole = file.read_bytes()
        for position in _positions(file):
            bit = 1 << position % 8
            file.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
            with pytest.raises(CheckpointError, match="corrupt"):
                verify(finished)
        file.write_bytes(whole)
    assert verify(finished)


def test_any_truncation_is_found(finished: Path) -> None:
    for file in finished.iterdir():
        whole = file.read_bytes()
        for length in {0, 1, 7, len(whole) // 2, len(whole) - 1}:
            file.write_bytes(whole[:length])
            with pytest.raises(CheckpointError):
                verify(finished)
        file.write_bytes(whole + b" ")
        with pytest.raises(CheckpointError):
            verify(finished)
        file.write_bytes(whole)


def test_missing_and_additional_files_are_found(finished: Path) -> None:
    for file in list(finished.iterdir()):
        whole = file.read_bytes()
        file.unlink()
        with pytest.raises(CheckpointError, match=file.name.replace(".", r"\.")):
            verify(finished)
        file.write_bytes(whole)
    (finished / "more.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"more\.bin"):
        verify(finished)
    (finished / "more.bin").unlink()


def test_nothing_in_a_run_folder_is_a_pickle(finished: Path) -> None:
    for file in finished.parent.parent.rglob("*"):
        if file.is_file():
            assert file.suffix in {".json", ".jsonl", ".safetensors"} or file.name == ".lock"


def test_a_corrupt_checkpoint_stops_resume_and_load(tmp_path: Path, quick: Quick) -> None:
    config = quick("bp")
    train.run(config, tmp_path / "run", progress=False)
    (tmp_path / "run/status.json").write_text(json.dumps({"status": "running", "step": 0, "reason": None}))
    older, newest = checkpoint.find(tmp_path / "run/checkpoints")
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    for attempt in (lambda: train.resume(tmp_path / "run", progress=False), lambda: load_run(tmp_path / "run")):
        with pytest.raises(
            CheckpointError, match=r"step_0000018 is corrupt \(model.safetensors\); remove it"
        ) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    assert older.name == "step_0000016"
    assert train.resume(tmp_path / "run", progress=False).steps == 18


def _session(config: RunConfig) -> Session:
    with torch.random.fork_rng(devices=[]):
        return build(config)


def test_another_config_is_refused(finished: Path, quick: Quick) -> None:
    with pytest.raises(CheckpointError, match="another config"):
        checkpoint.restore(_session(replace(quick("dfa", rule="aligned"), seed=3)), finished)


def test_another_model_is_refused(finished: Path, quick: Quick) -> None:
    config, files = quick("bp"), verify(finished)
    wider = _session(replace(config, network=replace(config.network, widths=(24, 32)))).model
    with pytest.raises(
        CheckpointError,
        match=r"another model: blocks\.1\.0\.weight is float32 of shape \(24, 24\) there and",
    ):
        checkpoint.load_model(wider, files, finished)
    deeper = _session(replace(config, network=replace(config.network, widths=(24, 24, 24)))).model
    with pytest.raises(CheckpointError, match=r"blocks\.2\.0\.weight is nothing there"):
        checkpoint.load_model(deeper, files, finished)


@pytest.mark.parametrize("arm", ["dfa", "odfa"])
def test_another_projection_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, arm: str) -> None:
    """The same config, on a machine or instrument that would give another matrix."""
    train.run(quick(arm), tmp_path / "run", progress=False)
    (tmp_path / "run/status.json").unlink()
    kind = GaussianSettings if arm == "dfa" else OpticalSettings
    monkeypatch.setattr(kind, "build", lambda self, run_seed: Gaussian(seed=9))
    with pytest.raises(OdfaError, match=r"gaussian\(seed=9") as caught:
        train.resume(tmp_path / "run", progress=False)
    assert isinstance(caught.value, CheckpointError)


def test_only_the_newest_two_stay(tmp_path: Path, quick: Quick) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir() if path.name != "step_0000018"] == [
        "step_0000016"
    ]


def test_half_written_ones_are_swept_away(tmp_path: Path, quick: Quick, traces: Callable[[Path], object]) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=False)
    before = traces(tmp_path / "run")
    (tmp_path / "run/status.json").unlink()
    for name in (".step_0000099.partial", ".step_0000003.removed"):
        leftover = tmp_path / "run/checkpoints" / name
        leftover.mkdir()
        (leftover / "model.safetensors").write_bytes(b"half")
    train.resume(tmp_path / "run", progress=False)
    assert not list((tmp_path / "run/checkpoints").glob(".*"))
    assert traces(tmp_path / "run") == before
